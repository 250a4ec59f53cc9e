//! Partitions in, offsets out.
//!
//! Kafka is an accelerator here. The offsets committed to it are a hint where to go on: what the views have
//! seen, only their watermarks say.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use domain::message::NotOurs;
use domain::{Message, Partition};
use futures::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use service_runtime::{Check, progress};
use tokio_util::sync::CancellationToken;

use crate::apply::Waiting;
use crate::metrics;
use crate::undecodable::Undecodable;

/// A batch ends with this many messages, or with so many bytes of them.
pub(crate) const MAX_MESSAGES: usize = 500;
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// What our messages name as their source.
const SOURCE: &str = "inkstream";
/// Timeout of the question for the topic.
const DESCRIBE_LIMIT: Duration = Duration::from_secs(3);
/// Time from one answer to the next question.
const DESCRIBE_INTERVAL: Duration = Duration::from_secs(5);

/// Our member of the consumer group.
pub struct Partitions {
    consumer: StreamConsumer,
    of_the_store: domain::Partitions,
    /// The last offset taken of each Kafka partition that is not noted for committing yet.
    reached: HashMap<(String, i32), i64>,
}

/// What Kafka had for us.
#[derive(Debug, Default)]
pub struct Batch {
    pub waiting: Waiting,
    /// Messages that are not ours, or are damaged.
    pub undecodable: Vec<Undecodable>,
    /// The last offset of each Kafka partition.
    offsets: HashMap<(String, i32), i64>,
    pub messages: usize,
    bytes: usize,
}

impl Partitions {
    pub fn join(
        brokers: &str,
        topic: &str,
        group: &str,
        of_the_store: domain::Partitions,
    ) -> anyhow::Result<Self> {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("client.id", "inkstream-projector")
            .set("group.id", group)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "500")
            .set("queued.max.messages.kbytes", "2048")
            // That much is used up sooner than in the second for which a full queue fetches no more by itself.
            .set("fetch.queue.backoff.ms", "20")
            // What is fetched is compressed, and many times as large here.
            .set("fetch.max.bytes", "1048576")
            .set("max.partition.fetch.bytes", "65536")
            // The topic may be made only after us.
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("reconnect.backoff.max.ms", "1000")
            .create()
            .context("creating the consumer")?;
        consumer.subscribe(&[topic]).context("subscribing to the topic")?;
        Ok(Self { consumer, of_the_store, reached: HashMap::new() })
    }

    /// Waits for a message, and takes with it all that has arrived.
    pub async fn next_batch(&self) -> Batch {
        let mut batch = Batch::default();
        while !batch.is_full() {
            let received = match batch.messages {
                0 => Some(self.consumer.recv().await),
                _ => self.consumer.recv().now_or_never(),
            };
            match received {
                Some(Ok(message)) => batch.add(&message, self.of_the_store),
                // librdkafka recovers by itself from all that it reports here.
                Some(Err(error)) => tracing::debug!(%error, "Kafka: {error}"),
                None => break,
            }
        }
        batch
    }

    /// Remembers how far a batch goes.
    pub fn took(&mut self, batch: &mut Batch) {
        self.reached.extend(batch.offsets.drain());
    }

    /// Notes how far we have come, to be committed in the background: all that was taken is applied.
    pub fn applied(&mut self) {
        for ((topic, partition), offset) in self.reached.drain() {
            // It stores the one behind it. It fails when the partition has been given to somebody else, and then it does not matter.
            let _ = self.consumer.store_offset(&topic, partition, offset);
        }
    }

    /// The partitions that are ours at the moment.
    pub fn assigned(&self) -> Vec<Partition> {
        let Ok(assignment) = self.consumer.assignment() else { return Vec::new() };
        let partition = |number| u16::try_from(number).ok().map(Partition);
        assignment.elements().iter().filter_map(|element| partition(element.partition())).collect()
    }
}

impl std::fmt::Debug for Partitions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partitions").finish_non_exhaustive()
    }
}

impl Batch {
    /// Whether there may be more where it came from.
    pub fn is_full(&self) -> bool {
        self.messages >= MAX_MESSAGES || self.bytes >= MAX_BYTES
    }

    fn add(&mut self, message: &BorrowedMessage<'_>, partitions: domain::Partitions) {
        self.messages += 1;
        self.bytes += message.payload_len();
        let (topic, number, offset) = (message.topic(), message.partition(), message.offset());
        self.offsets.insert((topic.to_owned(), number), offset);
        match read(message, partitions) {
            Ok((partition, message)) => {
                self.waiting.entry(partition).or_default().push_back(message);
            }
            Err(error) => {
                let (partition, reason) = (number, error.reason());
                tracing::warn!(partition, offset, %error, "A message on the topic is not ours: {error}");
                ::metrics::counter!(metrics::UNDECODABLE, "reason" => reason).increment(1);
                self.undecodable.push(Undecodable::new(message, &error.to_string()));
            }
        }
    }
}

/// Why a message is not one of our log. What is said of it in a metric comes from a small set.
#[derive(Debug, thiserror::Error)]
enum Foreign {
    #[error("the message has no headers")]
    NoHeaders,
    #[error("its source is not `{SOURCE}`")]
    Source,
    #[error(transparent)]
    Damaged(#[from] NotOurs),
    #[error("it belongs to partition {0}")]
    Partition(Partition),
}

impl Foreign {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoHeaders | Self::Damaged(NotOurs::Missing(_) | NotOurs::Malformed(_)) => {
                "headers"
            }
            Self::Source => "source",
            Self::Damaged(NotOurs::NoValue) => "value",
            Self::Partition(_) => "partition",
        }
    }
}

/// Reads one of our messages. Whether its event can be read, and is in the log, is another matter.
fn read(
    message: &BorrowedMessage<'_>,
    partitions: domain::Partitions,
) -> Result<(Partition, Message), Foreign> {
    let headers = message.headers().ok_or(Foreign::NoHeaders)?;
    let headers = || headers.iter().filter_map(|header| Some((header.key, header.value?)));
    if !headers().any(|header| header == ("ce_source", SOURCE.as_bytes())) {
        return Err(Foreign::Source);
    }
    let read = Message::read(headers(), message.payload())?;
    // Judged by the watermark of another partition than its own, it could only do harm.
    let partition = partitions.of(&read.event.stream_id);
    if message.partition() != i32::from(partition.0) {
        return Err(Foreign::Partition(partition));
    }
    Ok((partition, read))
}

/// The topic cannot be of this store, and no waiting will change that.
#[derive(Debug, thiserror::Error)]
#[error("the topic `{topic}` has {found} partitions and the store {needed}; they must be the same")]
struct WrongPartitions {
    topic: String,
    found: usize,
    needed: u16,
}

/// Sees that Kafka answers, and that the topic has the store's number of partitions.
#[derive(Debug, Clone)]
pub struct TopicTask {
    pub brokers: String,
    pub topic: String,
    pub of_the_store: domain::Partitions,
    pub kafka: Check,
}

impl TopicTask {
    /// Asks every few seconds, and ends the process if the topic is another's.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            progress::tick();
            let pause = tokio::time::sleep(DESCRIBE_INTERVAL);
            if stop.run_until_cancelled(pause).await.is_none() {
                return Ok(());
            }
            progress::tick();
            let Some(checked) = stop.run_until_cancelled(self.clone().check()).await else {
                return Ok(());
            };
            checked?;
        }
    }

    /// Without Kafka, or before the topic is made, nothing is known, and the views are kept up to date from the
    /// log.
    pub async fn check(self) -> anyhow::Result<()> {
        // Asking for metadata blocks its thread.
        tokio::task::spawn_blocking(move || self.check_blocking()).await?
    }

    fn check_blocking(self) -> anyhow::Result<()> {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "inkstream-projector")
            .create()
            .context("creating a client")?;
        let described = match client.fetch_metadata(Some(&self.topic), DESCRIBE_LIMIT) {
            Ok(described) => described,
            Err(error) => {
                self.kafka.degraded(format!("Kafka does not answer: {error}"));
                return Ok(());
            }
        };
        let topic = described.topics().iter().find(|topic| topic.name() == self.topic);
        let found = topic.map_or(0, |topic| topic.partitions().len());
        let needed = self.of_the_store.count();
        if found == usize::from(needed) {
            self.kafka.ready();
        } else if found == 0 {
            self.kafka.degraded(format!("Kafka has no topic `{}`", self.topic));
        } else {
            return Err(WrongPartitions { topic: self.topic, found, needed }.into());
        }
        Ok(())
    }
}

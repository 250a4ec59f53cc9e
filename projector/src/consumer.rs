//! Partitions in, offsets out.
//!
//! Kafka is an accelerator here. The offsets committed to it are a hint where to go on: what the views have
//! seen, only their watermarks say.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use domain::message::NotOurs;
use domain::{Message, Partition};
use futures::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use service_runtime::{Check, progress};
use tokio::sync::watch;
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
            .set("allow.auto.create.topics", "false")
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

/// Compares the topic's partitions with the store's, and reports a difference as degraded.
///
/// The views need no more than that. Order is kept by the guard, which lets no event in but the next. What a topic
/// with too few partitions cannot bring is read from Postgres, and partitions that the store has not stay empty.
#[derive(Debug)]
pub struct TopicTask {
    pub brokers: String,
    pub topic: String,
    pub of_the_store: domain::Partitions,
    pub kafka: Check,
    /// Number of partitions that the topic has, once that is known.
    pub found: watch::Sender<Option<u16>>,
}

impl TopicTask {
    /// Describes the topic from time to time.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            progress::tick();
            // Asking for metadata blocks its thread, and so does dropping a client.
            let (brokers, topic) = (self.brokers.clone(), self.topic.clone());
            let asked = tokio::task::spawn_blocking(move || count_partitions(&brokers, &topic));
            let Some(found) = stop.run_until_cancelled(asked).await else { return Ok(()) };
            self.report(found.context("describing the topic")?);
            progress::tick();
            let pause = tokio::time::sleep(DESCRIBE_INTERVAL);
            if progress::idle(stop.run_until_cancelled(pause)).await.is_none() {
                return Ok(());
            }
        }
    }

    fn report(&self, found: anyhow::Result<u16>) {
        let (topic, needed) = (&self.topic, self.of_the_store.count());
        if let Ok(found) = found {
            self.found.send_replace(Some(found));
        }
        match found {
            Ok(found) if found == needed => self.kafka.ready(),
            Ok(0) => self.kafka.degraded(format!("Kafka has no topic `{topic}`")),
            Ok(found) if found < needed => self.kafka.degraded(format!(
                "the topic `{topic}` has {found} partitions and the store {needed}; the others are read from \
                 Postgres until the topic is created again with {needed}"
            )),
            Ok(found) => self.kafka.degraded(format!(
                "the topic `{topic}` has {found} partitions and the store {needed}; the others stay empty"
            )),
            Err(error) => {
                self.kafka.degraded(format!("Kafka does not answer: {error:#}"));
            }
        }
    }
}

/// Returns how many partitions a topic has; 0 if there is no such topic.
fn count_partitions(brokers: &str, topic: &str) -> anyhow::Result<u16> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("client.id", "inkstream-projector")
        .set("allow.auto.create.topics", "false")
        .create()
        .context("creating a client")?;
    let described = client.fetch_metadata(Some(topic), DESCRIBE_LIMIT)?;
    let found = described.topics().iter().find(|described| described.name() == topic);
    let found = found.context("no answer")?;
    match found.error().map(RDKafkaErrorCode::from) {
        None => Ok(u16::try_from(found.partitions().len())?),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(0),
        Some(code) => bail!("{code}"),
    }
}

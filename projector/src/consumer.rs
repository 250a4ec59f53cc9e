//! Partitions in, offsets out.
//!
//! Kafka is an accelerator here. The offsets committed to it are a hint where to go on: what the views have
//! seen, only their watermarks say.

use anyhow::{Context, ensure};
use domain::{Message, Partition};
use futures::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};

use crate::apply::Waiting;

/// A batch ends with this many messages, or with so many bytes of them.
const MAX_MESSAGES: usize = 500;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Our member of the consumer group.
pub struct Partitions {
    consumer: StreamConsumer,
    of_the_store: domain::Partitions,
}

/// What Kafka had for us.
#[derive(Debug, Default)]
pub struct Batch {
    pub waiting: Waiting,
    /// The next offset of each Kafka partition, once all of it is applied.
    offsets: Vec<(String, i32, i64)>,
    messages: usize,
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
            .set("queued.max.messages.kbytes", "8192")
            // The topic may be made only after us.
            .set("topic.metadata.refresh.interval.ms", "1000")
            .set("reconnect.backoff.max.ms", "1000")
            .create()
            .context("creating the consumer")?;
        consumer.subscribe(&[topic]).context("subscribing to the topic")?;
        Ok(Self { consumer, of_the_store })
    }

    /// Waits for a message, and takes with it all that has arrived.
    pub async fn next_batch(&self) -> Batch {
        let mut batch = Batch::default();
        while batch.messages < MAX_MESSAGES && batch.bytes < MAX_BYTES {
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

    /// Notes how far we have come, to be committed in the background.
    pub fn applied(&self, batch: &Batch) {
        for (topic, partition, offset) in &batch.offsets {
            // It fails when the partition has been given to somebody else, and then it does not matter.
            let _ = self.consumer.store_offset(topic, *partition, *offset);
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
    fn add(&mut self, message: &BorrowedMessage<'_>, partitions: domain::Partitions) {
        self.messages += 1;
        self.bytes += message.payload_len();
        let (topic, number, next) = (message.topic(), message.partition(), message.offset() + 1);
        match self.offsets.iter_mut().find(|(t, p, _)| t == topic && *p == number) {
            Some((.., offset)) => *offset = next,
            None => self.offsets.push((topic.to_owned(), number, next)),
        }
        match read(message, partitions) {
            Ok((partition, message)) => {
                self.waiting.entry(partition).or_default().push_back(message);
            }
            Err(error) => {
                let (offset, partition) = (message.offset(), number);
                tracing::warn!(partition, offset, %error, "Passing over a message that is not ours: {error:#}");
                metrics::counter!("projector_foreign_messages_total").increment(1);
            }
        }
    }
}

fn read(
    message: &BorrowedMessage<'_>,
    partitions: domain::Partitions,
) -> anyhow::Result<(Partition, Message)> {
    let headers = message.headers().context("the message has no headers")?;
    let headers = headers.iter().filter_map(|header| Some((header.key, header.value?)));
    let read = Message::read(headers, message.payload())?;
    // Judged by the watermark of another partition than its own, it could only do harm.
    let partition = partitions.of(&read.event.stream_id);
    ensure!(message.partition() == i32::from(partition.0), "it belongs to partition {partition}");
    Ok((partition, read))
}

//! The Kafka producer, and the topic it writes to.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use domain::{Message, Partition};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use service_runtime::progress;

/// The longest message, 4 MiB. A body's 262,144 bytes may come to six times as many in JSON, where control
/// characters are written out; one that did not fit would hold up all that follow it.
const MAX_MESSAGE_BYTES: &str = "4194304";

/// How long Kafka may take to describe or create a topic.
const ADMIN_LIMIT: Duration = Duration::from_secs(5);

/// Where events go.
#[derive(Debug, Clone)]
pub struct Topic {
    pub brokers: String,
    pub name: String,
    /// As many as the store has.
    pub partitions: u16,
    /// Used when the topic is created.
    pub replication: i32,
}

/// The topic cannot carry this store's events, and no waiting will change that.
#[derive(Debug, thiserror::Error)]
#[error("the topic `{topic}` has {found} partitions and the store {needed}; they must be the same")]
pub struct WrongPartitions {
    topic: String,
    found: usize,
    needed: u16,
}

impl Topic {
    /// Creates the topic if it is not there, and sees that it has the store's number of partitions.
    pub(super) async fn ensure(&self) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options = AdminOptions::new()
            .operation_timeout(Some(ADMIN_LIMIT))
            .request_timeout(Some(ADMIN_LIMIT));
        let new = NewTopic::new(
            &self.name,
            self.partitions.into(),
            TopicReplication::Fixed(self.replication),
        )
        .set("retention.ms", "604800000");
        let created = admin.create_topics([&new], &options).await.context("creating the topic")?;
        for result in created {
            match result {
                Ok(_) => tracing::info!(topic = self.name, "Created the topic {}", self.name),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => bail!("the topic cannot be created: {code}"),
            }
        }
        progress::tick();
        let topic = self.clone();
        // Asking for metadata blocks its thread.
        tokio::task::spawn_blocking(move || topic.check(&admin)).await?
    }

    fn check(&self, admin: &AdminClient<DefaultClientContext>) -> anyhow::Result<()> {
        let metadata = admin
            .inner()
            .fetch_metadata(Some(&self.name), ADMIN_LIMIT)
            .context("asking for the topic")?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.name);
        let topic = topic.context("the topic is not there")?;
        ensure!(topic.error().is_none(), "the topic is not ready");
        let found = topic.partitions().len();
        if found != usize::from(self.partitions) {
            return Err(WrongPartitions {
                topic: self.name.clone(),
                found,
                needed: self.partitions,
            }
            .into());
        }
        Ok(())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "inkstream-relay");
        config
    }
}

/// A producer that keeps the order of what it is given. After any error it is done with: a new one begins
/// from the cursor.
pub(super) struct Publisher {
    producer: FutureProducer,
    topic: String,
}

impl Publisher {
    pub(super) fn new(topic: &Topic) -> anyhow::Result<Self> {
        let producer = topic
            .client()
            .set("enable.idempotence", "true")
            .set("linger.ms", "0.5")
            .set("compression.type", "lz4")
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            // A message that timed out by itself would leave a hole. The relay bounds its wait as a whole.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.kbytes", "16384")
            // After a broken connection, the next attempt should not come long after the broker has.
            .set("reconnect.backoff.max.ms", "1000")
            .create()
            .context("creating the producer")?;
        Ok(Self { producer, topic: topic.name.clone() })
    }

    /// Sends a message off; the future tells when Kafka has it. `None`: there is no room at the moment.
    pub(super) fn send(
        &self,
        partition: Partition,
        message: &Message,
    ) -> anyhow::Result<Option<DeliveryFuture>> {
        let headers =
            message.headers().iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
        let record = FutureRecord::to(&self.topic)
            .partition(i32::from(partition.0))
            .key(&message.event.stream_id)
            .payload(&message.event.payload.json)
            .headers(headers);
        match self.producer.send_result(record) {
            Ok(delivery) => Ok(Some(delivery)),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(None),
            Err((error, _)) => Err(error).context("handing a message to the producer"),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // What was not acknowledged is sent again from the cursor, by whoever holds the lease then. Letting go
        // of a producer purges its queue, and waits for a moment, which no task of ours should.
        let producer = self.producer.clone();
        tokio::task::spawn_blocking(move || drop(producer));
    }
}

//! Messages on the topic that are not ours, or are damaged: each is copied to a topic of its own, so that
//! nothing is dropped in silence.
//!
//! The views never wait for it. But no offset is committed before all that was read below it is copied, so a
//! process that ends first reads the messages again, and may copy one twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use service_runtime::{Check, progress};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::metrics;

/// How many messages, and how many bytes of them, may wait before nothing more is read from Kafka. The views
/// are then kept up to date from the log.
const MAX_WAITING: usize = 1000;
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// What is read at once comes on top.
const ROOM: usize = MAX_WAITING + crate::consumer::MAX_MESSAGES;
/// How long Kafka may take for one attempt.
const LIMIT: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Room for our headers beside a message that was as long as the first topic allowed.
const MAX_MESSAGE_BYTES: &str = "8388608";

/// A message as it was found.
#[derive(Debug)]
pub(crate) struct Undecodable {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
    bytes: usize,
}

impl Undecodable {
    pub(crate) fn new(message: &BorrowedMessage<'_>, reason: &str) -> Self {
        let found = message.headers().map_or_else(OwnedHeaders::new, |found| found.detach());
        let (partition, offset) = (message.partition().to_string(), message.offset().to_string());
        let told = [
            ("reason", reason),
            ("source-topic", message.topic()),
            ("source-partition", &partition),
            ("source-offset", &offset),
        ];
        let headers = told.into_iter().fold(found, |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let sizes =
            headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len));
        let bytes = sizes.sum::<usize>() + message.key_len() + message.payload_len();
        Self {
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            bytes,
        }
    }
}

/// Where copies go.
#[derive(Debug, Clone)]
pub(crate) struct CopyTo {
    pub brokers: String,
    pub topic: String,
    /// Used when the topic is created.
    pub replication: i32,
}

/// Takes messages that are to be copied.
#[derive(Debug)]
pub(crate) struct Copies {
    inbox: mpsc::Sender<Undecodable>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Copies {
    pub(crate) fn have_room(&self) -> bool {
        self.waiting.messages.load(Ordering::Acquire) < MAX_WAITING
            && self.waiting.bytes.load(Ordering::Acquire) < MAX_WAITING_BYTES
    }

    pub(crate) fn are_made(&self) -> bool {
        self.waiting.messages.load(Ordering::Acquire) == 0
    }

    /// Hands over what was read at once, while there was room.
    pub(crate) fn make(&self, found: Vec<Undecodable>) {
        for message in found {
            self.waiting.add(&message);
            // There is room, and the task ends only when all do; then the offset stays where it is.
            let _ = self.inbox.try_send(message);
        }
    }
}

impl Waiting {
    fn add(&self, message: &Undecodable) {
        self.bytes.fetch_add(message.bytes, Ordering::AcqRel);
        self.tell(self.messages.fetch_add(1, Ordering::AcqRel) + 1);
    }

    fn remove(&self, message: &Undecodable) {
        self.bytes.fetch_sub(message.bytes, Ordering::AcqRel);
        self.tell(self.messages.fetch_sub(1, Ordering::AcqRel) - 1);
    }

    fn tell(&self, messages: usize) {
        ::metrics::gauge!(metrics::UNCOPIED).set(messages as f64);
    }
}

/// Makes the copies, one handful after the other, each until it has succeeded.
pub(crate) struct CopyTask {
    to: CopyTo,
    inbox: mpsc::Receiver<Undecodable>,
    waiting: Arc<Waiting>,
    check: Check,
    /// Made, with its topic, when the first message comes.
    producer: Option<FutureProducer>,
}

impl std::fmt::Debug for CopyTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyTask").field("to", &self.to).finish_non_exhaustive()
    }
}

impl CopyTask {
    pub(crate) fn new(to: CopyTo, check: Check) -> (Self, Copies) {
        check.ready();
        let (sender, inbox) = mpsc::channel(ROOM);
        let waiting = Arc::<Waiting>::default();
        let copies = Copies { inbox: sender, waiting: Arc::clone(&waiting) };
        (Self { to, inbox, waiting, check, producer: None }, copies)
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut messages = Vec::new();
        loop {
            if messages.is_empty() {
                let received = self.inbox.recv_many(&mut messages, 100);
                let received = progress::idle(stop.run_until_cancelled(received)).await;
                if received.is_none_or(|count| count == 0) {
                    break;
                }
            }
            progress::tick();
            let Some(copied) = stop.run_until_cancelled(self.copy(&mut messages)).await else {
                break;
            };
            match copied {
                Ok(()) => self.check.ready(),
                Err(error) => {
                    let count = self.waiting.messages.load(Ordering::Acquire);
                    let topic = &self.to.topic;
                    self.check.degraded(format!(
                        "{count} messages wait to be copied to {topic}: {error:#}"
                    ));
                    stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                }
            }
        }
        // Letting go of a producer waits for a moment, which no task should.
        let producer = self.producer.take();
        tokio::task::spawn_blocking(move || drop(producer));
        progress::idle(stop.cancelled()).await;
        Ok(())
    }

    /// Copies messages, and takes out those of which Kafka has said that it has them.
    async fn copy(&mut self, messages: &mut Vec<Undecodable>) -> anyhow::Result<()> {
        let producer = match &self.producer {
            Some(producer) => producer,
            None => {
                self.create_topic().await?;
                progress::tick();
                self.producer.insert(self.producer()?)
            }
        };
        let attempts = messages.iter().map(|message| copy(producer, &self.to.topic, message));
        let outcomes = join_all(attempts).await;
        let mut failed = None;
        let mut outcomes = outcomes.into_iter();
        messages.retain(|message| match outcomes.next() {
            Some(Ok(())) => {
                self.waiting.remove(message);
                false
            }
            Some(Err(error)) => {
                failed = Some(error);
                true
            }
            None => true,
        });
        match failed {
            None => Ok(()),
            Some(error) => {
                // The topic may have been removed, or Kafka have come back empty.
                self.producer = None;
                Err(error).context("copying")
            }
        }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.to.brokers)
            .set("client.id", "inkstream-projector")
            .set("allow.auto.create.topics", "false");
        config
    }

    fn producer(&self) -> anyhow::Result<FutureProducer> {
        self.client()
            .set("acks", "all")
            .set("message.timeout.ms", LIMIT.as_millis().to_string())
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .create()
            .context("creating the producer")
    }

    async fn create_topic(&self) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let options =
            AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
        let topic = &self.to.topic;
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(self.to.replication))
            .set("max.message.bytes", MAX_MESSAGE_BYTES)
            // A month, for somebody to look.
            .set("retention.ms", "2592000000");
        let created = admin.create_topics([&new], &options).await.context("creating the topic")?;
        for result in created {
            match result {
                Ok(_) => tracing::info!(topic, "Created the topic {topic}"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => bail!("the topic cannot be created: {code}"),
            }
        }
        Ok(())
    }
}

/// Copies one message; without its value, and saying so, if the topic does not take messages so long: that
/// would never change.
async fn copy(
    producer: &FutureProducer,
    topic: &str,
    message: &Undecodable,
) -> Result<(), KafkaError> {
    let too_long = match send(producer, topic, message, message.headers.clone(), true).await {
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
            message.value.as_ref().map_or(0, Vec::len).to_string()
        }
        outcome => return outcome,
    };
    let headers = message.headers.clone();
    let headers = headers.insert(Header { key: "left-out-bytes", value: Some(&too_long) });
    send(producer, topic, message, headers, false).await
}

async fn send(
    producer: &FutureProducer,
    topic: &str,
    message: &Undecodable,
    headers: OwnedHeaders,
    whole: bool,
) -> Result<(), KafkaError> {
    let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
    record.key = message.key.as_deref();
    record.payload = message.value.as_deref().filter(|_| whole);
    let sent = producer.send(record, LIMIT).await;
    sent.map(|_| ()).map_err(|(error, _)| error)
}

//! The Kafka producer.

use anyhow::Context;
use domain::{Message, Partition};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use super::topic::{MAX_MESSAGE_BYTES, Topic};

/// Room for the header of a batch, which counts for the topic's limit and not for the producer's.
const BATCH_OVERHEAD: usize = 128;
/// The producer takes no lower limit.
const MIN_LIMIT: usize = 1000;

/// A producer that keeps the order of what it is given. It cannot be used after any error: a new one begins
/// from the cursor.
pub(super) struct Publisher {
    producer: FutureProducer,
    topic: String,
    /// Longest batch that it sends, in bytes.
    limit: usize,
}

/// Outcome of handing a message to the producer.
pub(super) enum Sent {
    /// On its way. The future tells when Kafka has it.
    Yes(DeliveryFuture),
    /// The producer has no room at the moment.
    Full,
    /// Longer than the topic takes. Nothing was sent.
    TooLong,
}

impl Publisher {
    /// Returns a producer for a topic that takes batches of so many bytes, if that is known.
    pub(super) fn new(topic: &Topic, max_message_bytes: Option<usize>) -> anyhow::Result<Self> {
        let limit = limit(max_message_bytes);
        let producer = topic
            .client()
            .set("enable.idempotence", "true")
            // Without it, messages behind a rejected one are sent before its stub.
            .set("enable.gapless.guarantee", "true")
            .set("linger.ms", "0.5")
            .set("compression.type", "lz4")
            // Kafka judges a batch as a whole, so this bounds batches, too.
            .set("message.max.bytes", limit.to_string())
            // A message that timed out by itself would leave a hole. The relay bounds its wait as a whole.
            .set("message.timeout.ms", "0")
            .set("queue.buffering.max.kbytes", "16384")
            // After a broken connection, the next attempt should not come long after the broker has.
            .set("reconnect.backoff.max.ms", "1000")
            .create()
            .context("creating the producer")?;
        Ok(Self { producer, topic: topic.name.clone(), limit })
    }

    /// Returns `true` if it sends as long batches as a topic with this limit takes.
    pub(super) fn fits(&self, max_message_bytes: Option<usize>) -> bool {
        self.limit == limit(max_message_bytes)
    }

    /// Hands a message to the producer.
    pub(super) fn send(&self, partition: Partition, message: &Message) -> anyhow::Result<Sent> {
        let headers =
            message.headers().iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value) })
            });
        let mut record = FutureRecord::<str, str>::to(&self.topic)
            .partition(i32::from(partition.0))
            .key(&message.event.stream_id)
            .headers(headers);
        record.payload = message.value();
        match self.producer.send_result(record) {
            Ok(delivery) => Ok(Sent::Yes(delivery)),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(Sent::Full),
            Err((KafkaError::MessageProduction(code), _)) if is_rejection(code) => {
                Ok(Sent::TooLong)
            }
            Err((error, _)) => Err(error).context("handing a message to the producer"),
        }
    }
}

/// Returns `true` if Kafka would reject the same message at every further attempt, whatever becomes of the cluster.
pub(super) fn is_rejection(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{
        InvalidMessageSize, InvalidRecord, MessageBatchTooLarge, MessageSizeTooLarge,
    };
    [MessageSizeTooLarge, MessageBatchTooLarge, InvalidMessageSize, InvalidRecord].contains(&code)
}

/// Longest batch of a producer for a topic with this limit.
fn limit(max_message_bytes: Option<usize>) -> usize {
    let limit = max_message_bytes.unwrap_or(MAX_MESSAGE_BYTES).min(MAX_MESSAGE_BYTES);
    limit.saturating_sub(BATCH_OVERHEAD).max(MIN_LIMIT)
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // What was not acknowledged is sent again from the cursor, by the next holder of the lease. Letting go
        // of a producer purges its queue, and waits for a moment, which no task of ours should.
        let producer = self.producer.clone();
        tokio::task::spawn_blocking(move || drop(producer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_end_by_itself_is_no_rejection() {
        use RDKafkaErrorCode as Code;
        for code in [Code::MessageSizeTooLarge, Code::MessageBatchTooLarge, Code::InvalidRecord] {
            assert!(is_rejection(code), "{code}");
        }
        for code in [
            Code::TopicAuthorizationFailed,
            Code::UnknownTopicOrPartition,
            Code::NotEnoughReplicas,
            Code::InvalidTimestamp,
            Code::PurgeQueue,
            Code::Fatal,
            Code::GaplessGuarantee,
            Code::MessageTimedOut,
            Code::OutOfOrderSequenceNumber,
            Code::BrokerTransportFailure,
        ] {
            assert!(!is_rejection(code), "{code}");
        }
    }

    #[test]
    fn a_batch_is_no_longer_than_the_topic_takes() {
        assert_eq!(limit(Some(100_000)), 99_872);
        assert_eq!(limit(None), limit(Some(usize::MAX)));
        assert_eq!(limit(Some(1)), 1000);
    }
}

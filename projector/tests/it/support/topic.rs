//! The topic, in the hands of a test: it may send what the relay sends, or less, or more, or in another
//! order.

use std::ops::RangeInclusive;

use domain::{Message, Partition, Point, Position};
use futures::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use testkit::{create_topic, unique_name};

use super::{Blog, PARTITIONS};

pub(super) fn producer(brokers: &str) -> FutureProducer {
    ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap()
}

impl Blog {
    /// From now on, nothing that was sent before is there.
    pub(crate) async fn has_another_topic(&mut self) {
        self.topic = unique_name("events");
        create_topic(&self.kafka, &self.topic, PARTITIONS.into()).await;
    }

    /// Every event of the log as its message, in order.
    pub(crate) async fn messages(&self) -> Vec<Message> {
        let incarnation = self.log.incarnation().await.unwrap();
        let mut last = vec![Point::START; PARTITIONS.into()];
        let mut messages = vec![];
        let mut read = Position::ZERO;
        loop {
            let page = self.log.read_after(read, 1000).await.unwrap();
            let Some((_, end)) = page.last() else { return messages };
            read = end.position;
            for (partition, event) in page {
                let slot = &mut last[usize::from(partition.0)];
                let previous = std::mem::replace(slot, event.point());
                messages.push(Message { incarnation, previous, event });
            }
        }
    }

    /// Sends what the log holds above a position.
    pub(crate) async fn relay_after(&self, position: Position) {
        self.relay(position.0 + 1..=u64::MAX).await;
    }

    /// Sends what stands at these positions of the log.
    pub(crate) async fn relay(&self, positions: RangeInclusive<u64>) {
        let mut messages = self.messages().await;
        messages.retain(|message| positions.contains(&message.event.position.0));
        // One behind the other, as the relay does; librdkafka keeps the order.
        join_all(messages.iter().map(|message| self.send(message))).await;
    }

    /// Sends what the log holds above a position, and of these events no payload.
    pub(crate) async fn relay_as_stubs(&self, position: Position, stubs: &[Position]) {
        for mut message in self.messages().await {
            if message.event.position <= position {
                continue;
            }
            if stubs.contains(&message.event.position) {
                message = message.stub();
            }
            self.send(&message).await;
        }
    }

    pub(crate) async fn send(&self, message: &Message) {
        let partition = self.log.partitions().of(&message.event.stream_id);
        self.send_to(partition, message).await;
    }

    pub(crate) async fn send_to(&self, partition: Partition, message: &Message) {
        self.send_raw(partition, &message.headers(), message.value()).await;
    }

    pub(crate) async fn send_raw(
        &self,
        partition: Partition,
        headers: &[(&'static str, String)],
        value: Option<&str>,
    ) {
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let mut record = FutureRecord::<str, str>::to(&self.topic)
            .partition(partition.0.into())
            .key("a key")
            .headers(headers);
        record.payload = value;
        let delivery = self.producer.send_result(record);
        delivery.map_err(|(error, _)| error).unwrap().await.unwrap().unwrap();
    }
}

//! A topic that is missing, not as it should be, or refuses messages: the relay goes on by itself when the cause
//! ends, says meanwhile what is wrong, and does not flood Kafka.

use std::time::Duration;

use domain::Position;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;
use testkit::{
    allow_writing, configure_topic, create_topic, delete_topic, eventually, eventually_within,
    extend_topic, forbid_writing, own_kafka_with, shared, topic_partitions, topic_setting,
    unique_name,
};

use crate::relay::{PARTITIONS, Running, Store, at, in_order, read_positions};
use crate::support;

#[tokio::test]
async fn the_topic_is_created_with_the_settings_that_events_need() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let relay = store.relay(&topic, &shared().kafka);
    store.record(0..1).await;
    read_positions(&shared().kafka, &topic, 1).await;
    for (setting, value) in [
        ("max.message.bytes", "4194304"),
        ("min.insync.replicas", "1"),
        ("retention.ms", "604800000"),
    ] {
        let found = topic_setting(&shared().kafka, &topic, setting).await;
        assert_eq!(found.as_deref(), Some(value), "{setting}");
    }
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_topic_deleted_while_running_is_created_again_as_it_was() {
    let (brokers, store, topic) = (shared().kafka, Store::new().await, unique_name("events"));
    let relay = store.relay(&topic, &brokers);
    store.record(0..20).await;
    eventually("the relay carries events", async || store.cursor().await == 20).await;

    delete_topic(&brokers, &topic).await;
    store.record(20..60).await;
    let limit = Duration::from_secs(120);
    eventually_within(limit, "the rest is published", async || store.cursor().await == 60).await;
    assert_eq!(topic_partitions(&brokers, &topic).await, usize::from(PARTITIONS));

    // Nothing is under way this time.
    delete_topic(&brokers, &topic).await;
    is_created_again(&brokers, &topic).await;
    store.record(60..70).await;
    eventually_within(limit, "the rest is published", async || store.cursor().await == 70).await;
    eventually("all is well", async || relay.degraded().is_none()).await;
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_topic_with_too_few_partitions_is_named_and_waited_for() {
    let (store, topic) = (Store::new().await, unique_name("events"));
    create_topic(&shared().kafka, &topic, 3).await;
    let relay = store.relay(&topic, &shared().kafka);
    store.record(0..20).await;
    names(&relay, "has 3 partitions and the store 4").await;
    assert_eq!(messages_in(&shared().kafka, &topic, 3).await, 0);

    delete_topic(&shared().kafka, &topic).await;
    let messages = read_positions(&shared().kafka, &topic, 20).await;
    assert_eq!(in_order(messages), (1..=20).collect::<Vec<_>>());
    eventually("all is well", async || relay.degraded().is_none()).await;
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_topic_with_more_partitions_is_named_and_used() {
    let (store, topic) = (Store::new().await, unique_name("events"));
    let relay = store.relay(&topic, &shared().kafka);
    store.record(0..20).await;
    eventually("the relay carries events", async || store.cursor().await == 20).await;
    extend_topic(&shared().kafka, &topic, 5).await;
    names(&relay, "has 5 partitions and the store 4").await;
    store.record(20..40).await;
    let messages = read_positions(&shared().kafka, &topic, 40).await;
    assert_eq!(in_order(messages), (1..=40).collect::<Vec<_>>());
    relay.stop().await.unwrap();

    // Nor does it keep a process from starting.
    let relay = store.relay(&topic, &shared().kafka);
    store.record(40..60).await;
    eventually("the relay carries events", async || store.cursor().await == 60).await;
    assert!(relay.degraded().is_some());
    delete_topic(&shared().kafka, &topic).await;
    eventually("all is well", async || relay.degraded().is_none()).await;
    assert_eq!(topic_partitions(&shared().kafka, &topic).await, usize::from(PARTITIONS));
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn an_event_that_the_topic_is_too_small_for_is_published_as_a_stub() {
    let (store, topic) = (Store::new().await, unique_name("events"));
    let relay = store.relay(&topic, &shared().kafka);
    store.record(0..100).await;
    eventually("the relay carries events", async || store.cursor().await == 100).await;

    configure_topic(&shared().kafka, &topic, &[("max.message.bytes", "100000")]).await;
    store.record_long("long-0", 250_000).await;
    store.record(100..319).await;
    store.record_long("long-1", 250_000).await;
    let messages = read_positions(&shared().kafka, &topic, 321).await;
    let stubs: Vec<u64> = messages.iter().filter(|read| read.is_stub()).map(at).collect();
    assert!(stubs.contains(&101) && stubs.contains(&321), "{stubs:?}");
    assert!(stubs.iter().all(|position| [101, 321].contains(position)), "{stubs:?}");
    let stub = messages.iter().find(|read| read.is_stub()).unwrap();
    let stored = store.event_at(Position(at(stub))).await;
    assert_eq!(stub.event.event_id, stored.event_id);
    assert_eq!(stub.event.stream_id, stored.stream_id);
    assert_eq!(in_order(messages), (1..=321).collect::<Vec<_>>());
    eventually("the cursor is at the head", async || store.cursor().await == 321).await;
    // What was on its way when the limit was met may be there twice.
    let count = messages_in(&shared().kafka, &topic, PARTITIONS).await;
    assert!(count <= 2 * 321, "{count} messages");
    for part in ["position 321", "bytes", "takes 100000", "max.message.bytes=100000"] {
        names(&relay, part).await;
    }

    configure_topic(&shared().kafka, &topic, &[("max.message.bytes", "4194304")]).await;
    eventually("all is well", async || relay.degraded().is_none()).await;
    store.record_long("long-2", 250_000).await;
    let messages = read_positions(&shared().kafka, &topic, 322).await;
    let last = messages.iter().find(|read| at(read) == 322).unwrap();
    assert!(last.event.payload.json.len() > 250_000);
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_forbids_writing_is_neither_flooded_nor_given_stubs() {
    let kafka = own_kafka_with(&[
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
        ("auto.create.topics.enable", "true"),
    ])
    .await;
    let (brokers, store, topic) = (kafka.brokers(), Store::new().await, unique_name("events"));
    let relay = store.relay(&topic, &brokers);
    store.record(0..100).await;
    eventually("the relay carries events", async || store.cursor().await == 100).await;

    forbid_writing(&brokers, &topic).await;
    eventually("it is forbidden", async || is_forbidden(&brokers, &topic).await).await;
    let before = messages_in(&brokers, &topic, PARTITIONS).await;
    store.record(100..600).await;
    let token = store.token().await;
    eventually("rounds fail", async || store.token().await > token + 3).await;
    let refused = messages_in(&brokers, &topic, PARTITIONS).await;
    assert_eq!(refused, before, "some were written all the same");

    allow_writing(&brokers, &topic).await;
    let messages = read_positions(&brokers, &topic, 600).await;
    assert!(messages.iter().all(|read| !read.is_stub()));
    assert_eq!(in_order(messages), (1..=600).collect::<Vec<_>>());
    eventually("the cursor is at the head", async || store.cursor().await == 600).await;
    // A round that failed once more may have published some twice.
    let published = messages_in(&brokers, &topic, PARTITIONS).await - before;
    assert!((500..=1000).contains(&published), "{published}");

    // This broker would create the topic by itself, with one partition, if a client let it.
    delete_topic(&brokers, &topic).await;
    store.record(600..610).await;
    is_created_again(&brokers, &topic).await;
    let limit = Duration::from_secs(120);
    eventually_within(limit, "the rest is published", async || store.cursor().await == 610).await;
    assert_eq!(topic_partitions(&brokers, &topic).await, usize::from(PARTITIONS));
    relay.stop().await.unwrap();
}

async fn is_created_again(brokers: &str, topic: &str) {
    eventually_within(Duration::from_secs(120), "the topic is there again", async || {
        topic_partitions(brokers, topic).await == usize::from(PARTITIONS)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_says_that_nothing_is_published() {
    let database = support::new_database().await;
    let away = "--kafka-brokers=127.0.0.1:1";
    let service = support::start_with(database, &[away]).await;
    let draft = json!({ "title": "On waiting", "content": "", "status": "draft" });
    let request = service.anne(reqwest::Method::POST, "/posts").json(&draft);
    assert_eq!(request.send().await.unwrap().status(), 201);
    let why = async || {
        let health = service.ops("/health/ready").await;
        assert_eq!(health.status(), 200);
        let health: serde_json::Value = health.json().await.unwrap();
        health["checks"]["relay"]["why"].as_str().map(str::to_owned)
    };
    let mut said = None;
    eventually_within(Duration::from_secs(120), "it says so", async || {
        said = why().await;
        said.is_some()
    })
    .await;
    let said = said.unwrap();
    assert!(said.contains("nothing above position 0 has been published for 30 s"), "{said}");
    assert!(said.contains("asking for the topic"), "{said}");
    service.stop().await.unwrap();
}

/// Waits until the relay's readiness says this.
async fn names(relay: &Running, reason: &str) {
    eventually(reason, async || relay.degraded().is_some_and(|why| why.contains(reason))).await;
}

/// Returns `true` if the broker takes no message from this client.
async fn is_forbidden(brokers: &str, topic: &str) -> bool {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("message.timeout.ms", "5000")
        .create()
        .unwrap();
    // No reader is there yet, and none takes this for an event.
    let probe = FutureRecord::<str, str>::to(topic).payload("a probe").partition(0);
    let sent = producer.send(probe, Duration::from_secs(5)).await;
    let Err((error, _)) = sent else { return false };
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed)
}

/// How many messages the topic has.
async fn messages_in(brokers: &str, topic: &str, partitions: u16) -> i64 {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let counted = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        let ends = (0..partitions).map(|partition| {
            let limit = Duration::from_secs(10);
            consumer.fetch_watermarks(&topic, partition.into(), limit).unwrap().1
        });
        ends.sum()
    });
    counted.await.unwrap()
}

impl Store {
    /// Records an event whose payload is of about this size, and does not become smaller by compression.
    async fn record_long(&self, stream: &str, bytes: usize) {
        let mut text = String::with_capacity(bytes + 32);
        while text.len() < bytes {
            text += &uuid::Uuid::new_v4().simple().to_string();
        }
        self.record_payload(stream, &json!({ "content": text }).to_string()).await;
    }

    async fn event_at(&self, position: Position) -> domain::Recorded<domain::RawEvent> {
        let partitions = domain::Partitions::new(PARTITIONS).unwrap();
        let log = event_log::EventLog::new(self.pool.clone(), partitions);
        log.event_at(position).await.unwrap().unwrap()
    }
}

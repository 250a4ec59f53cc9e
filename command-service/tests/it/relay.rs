//! The log arrives in Kafka: all of it, in order, whoever carries it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use command_service::config::Command;
use command_service::incarnation;
use command_service::relay::{LOOK, Relay, RelayHealth, RelaySettings, STANDSTILL_LIMIT, Topic};
use command_service::store::{Commit, NewEvent, QueueLimits, Writer, writer};
use domain::{Message, Partition, Partitions, Point, Position};
use event_log::{EventLog, PoolSettings};
use futures::StreamExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{Headers, Message as _};
use service_runtime::Readiness;
use service_runtime::health::State;
use sqlx::PgPool;
use testkit::{TestDatabase, eventually, shared, unique_name};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::new_database;

pub(crate) const PARTITIONS: u16 = 4;

#[tokio::test]
async fn every_event_arrives_in_order_and_names_the_one_before_it() {
    let store = Store::new().await;
    let topic = unique_name("events");
    store.record(0..300).await;
    let relay = store.relay(&topic, &shared().kafka);
    // Some more while it runs.
    store.record(300..600).await;

    let messages = read_topic(&topic, 600).await;
    assert_eq!(in_order(messages), (1..=600).collect::<Vec<_>>());
    eventually("the cursor is at the head", async || store.cursor().await == 600).await;
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_is_a_cloud_event() {
    let store = Store::new().await;
    let topic = unique_name("events");
    store.record(0..1).await;
    let relay = store.relay(&topic, &shared().kafka);
    let message = read_topic(&topic, 1).await.remove(0);
    assert_eq!(message.previous, Point::START);
    assert_eq!(message.incarnation, 1);
    assert_eq!(message.event.sequence, 1);
    assert_eq!(message.event.payload.event_type, "post.deleted");
    assert_eq!(message.event.payload.json, r#"{"deleted": {}}"#);
    assert_eq!(message.event.payload.traceparent.as_deref(), Some("00-trace"));
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn another_relay_takes_over_where_the_first_was_stopped() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let first = store.relay(&topic, &shared().kafka);
    store.record(0..50).await;
    eventually("the first carries events", async || store.cursor().await == 50).await;
    let second = store.relay(&topic, &shared().kafka);
    first.stop().await.unwrap();
    store.record(50..100).await;
    assert_eq!(in_order(read_topic(&topic, 100).await), (1..=100).collect::<Vec<_>>());
    second.stop().await.unwrap();
}

#[tokio::test]
async fn another_relay_takes_over_from_one_that_vanished() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let first = store.relay(&topic, &shared().kafka);
    store.record(0..50).await;
    eventually("the first carries events", async || store.cursor().await == 50).await;
    first.vanish();
    let second = store.relay(&topic, &shared().kafka);
    store.record(50..100).await;
    assert_eq!(in_order(read_topic(&topic, 100).await), (1..=100).collect::<Vec<_>>());
    second.stop().await.unwrap();
}

#[tokio::test]
async fn events_recorded_while_kafka_is_away_arrive_after_it() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let proxy = shared().kafka_proxy().await;
    let relay = store.relay(&topic, &proxy.address());
    store.record(0..50).await;
    eventually("the relay carries events", async || store.cursor().await == 50).await;
    proxy.cut();
    store.record(50..150).await;
    proxy.restore();
    assert_eq!(in_order(read_topic(&topic, 150).await), (1..=150).collect::<Vec<_>>());
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_cursor_that_was_not_saved_doubles_events_but_loses_none() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let first = store.relay(&topic, &shared().kafka);
    store.record(0..50).await;
    eventually("the first carries events", async || store.cursor().await == 50).await;
    first.stop().await.unwrap();
    sqlx::query("UPDATE relay SET cursor = 20").execute(&store.pool).await.unwrap();

    let second = store.relay(&topic, &shared().kafka);
    store.record(50..60).await;
    let messages = read_messages(&topic, |read| {
        let count = |position| read.iter().filter(|read| at(read) == position).count();
        !(1..=60).all(|position| count(position) > usize::from((21..=50).contains(&position)))
    })
    .await;
    assert_eq!(in_order(messages), (1..=60).collect::<Vec<_>>());
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_incarnation_takes_the_lease_away_and_is_told_in_every_message_after_it() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let relay = store.relay(&topic, &shared().kafka);
    store.record(0..10).await;
    eventually("the relay carries events", async || store.cursor().await == 10).await;

    let before = store.token().await;
    let url = format!("--database-url={}", store.database.url());
    match Command::try_parse_from(["command-service", "new-incarnation", &url]) {
        Ok(Command::NewIncarnation(args)) => incarnation::begin_new(&args).await.unwrap(),
        other => panic!("{other:?}"),
    }
    // Taken once by the operator, and once more by the relay.
    eventually("the relay has begun anew", async || store.token().await >= before + 2).await;
    store.record(10..20).await;
    let messages = read_topic(&topic, 20).await;
    for message in messages {
        let expected = if message.event.position.0 > 10 { 2 } else { 1 };
        assert_eq!(message.incarnation, expected, "at {}", message.event.position);
    }
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn the_longest_event_there_can_be_is_carried() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let relay = store.relay(&topic, &shared().kafka);
    // Each is written as six characters in JSON.
    let content = "\u{1}".repeat(262_144);
    store.record_payload("long", &serde_json::json!({ "content": content }).to_string()).await;
    store.record(0..1).await;
    let messages = read_topic(&topic, 2).await;
    let longest = messages.iter().map(|message| message.event.payload.json.len()).max().unwrap();
    assert!(longest > 6 * 262_144, "{longest}");
    assert_eq!(in_order(messages), [1, 2]);
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_read_of_long_events_ends_early_and_keeps_its_connection() {
    let store = Store::new().await;
    // Much more text than Postgres could send while a connection is given back.
    sqlx::query(
        "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                             position, partition, event_id, recorded_at)
         SELECT 'post', 'long', position, 'post.revised', '1',
                jsonb_build_object('content', repeat('x', 2000000)), '{}',
                position, 1, gen_random_uuid(), clock_timestamp()
         FROM generate_series(1, 300) AS position",
    )
    .execute(&store.pool)
    .await
    .unwrap();
    let settings = PoolSettings {
        name: "a test",
        connections: 1,
        acquire_limit: Duration::from_secs(60),
        options: &[],
        for_scans: false,
    };
    let pool = event_log::pool(store.database.url(), settings).unwrap();
    let log = EventLog::new(pool.clone(), Partitions::new(PARTITIONS).unwrap());
    let backend = async || -> i32 {
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&pool).await.unwrap()
    };
    let before = backend().await;
    let read = log.read_after(Position(2), 1000).await.unwrap();
    let positions: Vec<u64> = read.iter().map(|(_, event)| event.position.0).collect();
    assert_eq!(positions, [3, 4, 5]);
    assert_eq!(backend().await, before);
    let read = log.read_partition_after(Partition(1), Position(298), 1000).await.unwrap();
    assert_eq!(read.len(), 2);
    let read = log.read_partition_after(Partition(1), Position(7), 2).await.unwrap();
    assert_eq!(read.iter().map(|event| event.position.0).collect::<Vec<_>>(), [8, 9]);
    assert_eq!(backend().await, before);
}

/// A store, and what it takes to record in it.
pub(crate) struct Store {
    writer: Writer,
    pub(crate) database: TestDatabase,
    pub(crate) pool: PgPool,
    recorded: Arc<Notify>,
}

pub(crate) struct Running {
    running: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
    readiness: Readiness,
}

impl Running {
    /// Returns why the relay is degraded.
    pub(crate) fn degraded(&self) -> Option<String> {
        match self.readiness.states().remove("relay") {
            Some(State::Ready) => None,
            Some(State::Degraded(why)) => Some(why.into_owned()),
            other => panic!("the relay made the process unready: {other:?}"),
        }
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.running.await.unwrap()
    }

    /// Ends it as a crash would: nothing is given back.
    fn vanish(self) {
        self.running.abort();
    }
}

impl Store {
    pub(crate) async fn new() -> Self {
        Self::of(new_database().await).await
    }

    /// As another process has it.
    pub(crate) async fn of(database: TestDatabase) -> Self {
        let pool = PgPool::connect(database.url()).await.unwrap();
        let recorded = Arc::default();
        let (writer, task) = writer(
            database.url().parse().unwrap(),
            QueueLimits { kib: 16_384, wait: Duration::MAX },
            Arc::clone(&recorded),
        );
        tokio::spawn(task.run());
        Self { writer, database, pool, recorded }
    }

    pub(crate) fn relay(&self, topic: &str, brokers: &str) -> Running {
        self.relay_that_looks(LOOK, topic, brokers)
    }

    /// A relay that looks by itself only so often.
    pub(crate) fn relay_that_looks(&self, look: Duration, topic: &str, brokers: &str) -> Running {
        self.relay_with(Duration::from_secs(1), look, topic, brokers)
    }

    pub(crate) fn relay_with(
        &self,
        lease: Duration,
        look: Duration,
        topic: &str,
        brokers: &str,
    ) -> Running {
        let log = EventLog::new(self.pool.clone(), Partitions::new(PARTITIONS).unwrap());
        let settings = RelaySettings {
            topic: Topic {
                brokers: brokers.to_owned(),
                name: topic.to_owned(),
                partitions: PARTITIONS,
                replication: 1,
                min_in_sync: 1,
            },
            holder: "a test".to_owned(),
            lease,
            look,
            topic_check: Duration::from_secs(1),
        };
        let readiness = Readiness::new();
        let health = RelayHealth::new(readiness.check("relay"), STANDSTILL_LIMIT);
        let recorded = Arc::clone(&self.recorded);
        let relay = Relay::new(log, self.pool.clone(), recorded, health, settings);
        let stop = CancellationToken::new();
        Running { running: tokio::spawn(relay.run(stop.clone())), stop, readiness }
    }

    /// Records one event in each of these streams.
    pub(crate) async fn record(&self, streams: std::ops::Range<usize>) {
        for number in streams {
            self.record_payload(&format!("stream-{number}"), r#"{"deleted":{}}"#).await;
        }
    }

    pub(crate) async fn record_payload(&self, stream: &str, payload: &str) {
        let event = NewEvent {
            id: Uuid::now_v7(),
            event_type: "post.deleted".to_owned(),
            event_version: "1".to_owned(),
            payload: payload.to_owned(),
        };
        let commit = Commit {
            uid: event.id,
            aggregate_type: "post",
            partition: Partitions::new(PARTITIONS).unwrap().of(stream).0,
            aggregate_id: stream.to_owned(),
            version: 0,
            slug: None,
            events: vec![event],
            kept: None,
            metadata: r#"{"traceparent":"00-trace"}"#.to_owned(),
        };
        self.writer.append(commit).await.unwrap();
    }

    pub(crate) async fn token(&self) -> i64 {
        sqlx::query_scalar("SELECT token FROM relay").fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn cursor(&self) -> i64 {
        sqlx::query_scalar("SELECT cursor FROM relay").fetch_one(&self.pool).await.unwrap()
    }
}

/// Reads a topic from its beginning until it has shown all positions to this one. Some may be there more than once.
async fn read_topic(topic: &str, head: u64) -> Vec<Message> {
    read_positions(&shared().kafka, topic, head).await
}

/// Reads the topic from these brokers.
pub(crate) async fn read_positions(brokers: &str, topic: &str, head: u64) -> Vec<Message> {
    read_messages_from(brokers, topic, |read| {
        (1..=head).any(|position| !read.iter().any(|read| at(read) == position))
    })
    .await
}

pub(crate) fn at(message: &Message) -> u64 {
    message.event.position.0
}

/// Reads a topic from its beginning for as long as something is missing from what was read.
pub(crate) async fn read_messages(
    topic: &str,
    is_incomplete: impl Fn(&[Message]) -> bool,
) -> Vec<Message> {
    read_messages_from(&shared().kafka, topic, is_incomplete).await
}

async fn read_messages_from(
    brokers: &str,
    topic: &str,
    is_incomplete: impl Fn(&[Message]) -> bool,
) -> Vec<Message> {
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", unique_name("reader"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        // The topic may not be there yet.
        .set("topic.metadata.refresh.interval.ms", "200")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let messages = consumer.stream().filter_map(async |message| {
        let message = message.ok()?;
        let headers = message.headers()?.iter();
        let headers = headers.filter_map(|header| Some((header.key, header.value?)));
        Some(Message::read(headers, message.payload()).unwrap())
    });
    let mut messages = std::pin::pin!(messages);
    let mut read = vec![];
    let reading = async {
        while is_incomplete(&read) {
            read.extend(messages.next().await);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .expect("the topic ended too early");
    read
}

/// The positions that the messages carry, each once, after seeing that in each partition every message
/// names the one before it, and that what is sent again is the same.
pub(crate) fn in_order(messages: Vec<Message>) -> Vec<u64> {
    let partitions = Partitions::new(PARTITIONS).unwrap();
    let mut chains: HashMap<_, Vec<Point>> = HashMap::new();
    for message in messages {
        let chain = chains
            .entry(partitions.of(&message.event.stream_id))
            .or_insert_with(|| vec![Point::START]);
        let point = message.event.point();
        match chain.iter().position(|known| *known == point) {
            Some(at) => assert_eq!(chain[at - 1], message.previous),
            None => {
                assert_eq!(*chain.last().unwrap(), message.previous);
                chain.push(point);
            }
        }
    }
    let mut positions: Vec<u64> = chains
        .into_values()
        .flat_map(|chain| chain.into_iter().skip(1))
        .map(|point| point.position.0)
        .collect();
    positions.sort_unstable();
    positions
}

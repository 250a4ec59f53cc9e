//! What an earlier version of the program wrote is read as the present one would have written it, by
//! aggregates and by folds, and goes to Kafka as it was written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use command_service::store::{
    Commit, Judged, LoadError, NewEvent, QueueLimits, Store, Writer, writer,
};
use cqrs_es::event_sink::EventSink;
use cqrs_es::{Aggregate, DomainEvent};
use domain::{Partitions, Position, StoredEvent, Upcast};
use event_log::EventLog;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::TestDatabase;
use uuid::Uuid;

use crate::support::new_database;

/// A tally that was kept in dozens at first.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Tally {
    eggs: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TallyEvent {
    Laid { eggs: u64 },
}

impl DomainEvent for TallyEvent {
    fn event_type(&self) -> String {
        "tally.laid".to_owned()
    }

    fn event_version(&self) -> String {
        "2".to_owned()
    }
}

impl StoredEvent for TallyEvent {
    const KNOWN: &'static [(&'static str, &'static str)] = &[("tally.laid", "2")];
    const UPCASTS: &'static [Upcast] =
        &[Upcast { from: ("tally.laid", "1"), to: ("tally.laid", "2"), payload: count_eggs }];
}

fn count_eggs(laid: Value) -> Value {
    match laid["laid"]["dozens"].as_u64() {
        Some(dozens) => json!({"laid": {"eggs": 12 * dozens}}),
        None => laid,
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("a tally takes no commands")]
struct NoCommands;

impl Aggregate for Tally {
    const TYPE: &'static str = "tally";
    type Command = ();
    type Event = TallyEvent;
    type Error = NoCommands;
    type Services = ();

    async fn handle(&mut self, (): (), (): &(), _: &EventSink<Self>) -> Result<(), NoCommands> {
        Err(NoCommands)
    }

    fn apply(&mut self, TallyEvent::Laid { eggs }: TallyEvent) {
        self.eggs += eggs;
    }
}

#[tokio::test]
async fn an_aggregate_is_loaded_from_events_of_all_versions_and_goes_on_from_there() {
    let database = new_database().await;
    let (writer, store) = open(&database).await;
    append(&writer, &[("1", json!({"laid": {"dozens": 2}})), ("2", json!({"laid": {"eggs": 3}}))])
        .await;

    let loaded = store.load("hens").await.unwrap();
    assert_eq!((loaded.aggregate.eggs, loaded.version), (27, 2));

    let laid = [TallyEvent::Laid { eggs: 1 }];
    let deadline = Instant::now() + Duration::from_secs(60);
    let judged =
        store.append(deadline, "hens", loaded.version, &laid, &HashMap::new(), None).await.unwrap();
    assert!(matches!(judged, Judged::Recorded { version: 3, .. }), "{judged:?}");
    assert_eq!(store.load("hens").await.unwrap().aggregate.eggs, 28);
}

#[tokio::test]
async fn a_fold_reads_events_of_all_versions_and_the_log_keeps_them_as_they_were_written() {
    let database = new_database().await;
    let (writer, _) = open(&database).await;
    let written = [("1", json!({"laid": {"dozens": 2}})), ("2", json!({"laid": {"eggs": 3}}))];
    append(&writer, &written).await;

    let log = EventLog::new(PgPool::connect(database.url()).await.unwrap(), partitions());
    let events = log.read_after(Position::ZERO, 10).await.unwrap();
    // These are what the relay sends.
    let stored = events.iter().map(|(_, event)| {
        let payload = serde_json::from_str::<Value>(&event.payload.json).unwrap();
        (event.payload.event_version.as_str(), payload)
    });
    assert_eq!(stored.collect::<Vec<_>>(), written);

    let folded = events.into_iter().fold(0, |sum, (_, event)| {
        let TallyEvent::Laid { eggs } = TallyEvent::decode(event).unwrap().payload;
        sum + eggs
    });
    assert_eq!(folded, 27);
}

#[tokio::test]
async fn a_stream_with_an_event_of_a_version_not_known_here_is_not_loaded() {
    let database = new_database().await;
    let (writer, store) = open(&database).await;
    append(&writer, &[("3", json!({"laid": {"eggs": 2}}))]).await;
    let refused = store.load("hens").await;
    assert!(matches!(refused, Err(LoadError::Unreadable(_))), "{refused:?}");
}

async fn open(database: &TestDatabase) -> (Writer, Store<Tally>) {
    let (writer, task) = writer(
        database.url().parse().unwrap(),
        QueueLimits { kib: 16_384, wait: Duration::MAX },
        Arc::default(),
    );
    tokio::spawn(task.run());
    let pool = PgPool::connect(database.url()).await.unwrap();
    (writer.clone(), Store::new(pool, writer, partitions()))
}

/// Records events as a program of that time did.
async fn append(writer: &Writer, events: &[(&str, Value)]) {
    let event = |(version, payload): &(&str, Value)| NewEvent {
        id: Uuid::now_v7(),
        event_type: "tally.laid".to_owned(),
        event_version: (*version).to_owned(),
        payload: payload.to_string(),
    };
    let events: Vec<NewEvent> = events.iter().map(event).collect();
    let commit = Commit {
        uid: events[0].id,
        aggregate_type: Tally::TYPE,
        aggregate_id: "hens".to_owned(),
        version: 0,
        partition: partitions().of("hens").0,
        slug: None,
        events,
        kept: None,
        metadata: "{}".to_owned(),
    };
    let judged = writer.append(commit).await.unwrap();
    assert!(matches!(judged, Judged::Recorded { .. }), "{judged:?}");
}

fn partitions() -> Partitions {
    Partitions::new(4).unwrap()
}

//! Many commits, one call, each judged on its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use command_service::store::{
    AppendError, Commit, Judged, Kept, NewEvent, QueueLimits, Store, Writer, writer,
};
use cqrs_es::{AggregateError, CqrsFramework};
use domain::post::{Author, Post, PostCommand, PostContent, PostError, Summary};
use domain::{AuthorId, Partitions, Position, Slug};
use sqlx::{Connection, PgConnection, PgPool};
use testkit::{TestDatabase, eventually};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::new_database;

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_give_positions_without_a_hole_and_streams_in_order() {
    const WRITERS: usize = 64;
    const COMMITS: usize = 20;
    let database = new_database().await;
    // Two processes, each with its own writer.
    let processes = [start_writer(&database).await, start_writer(&database).await];
    let mut tasks = JoinSet::new();
    for number in 0..WRITERS {
        let writer = processes[number % 2].clone();
        tasks.spawn(async move {
            let (mut recorded, mut conflicts, mut version) = (0, 0, 0);
            for nth in 0..COMMITS {
                let stream = format!("stream-{}", (number + nth) % 8);
                loop {
                    match writer.append(commit(&stream, version, 1 + nth % 3)).await.unwrap() {
                        Judged::Recorded { version: now, .. } => {
                            version = now;
                            recorded += 1 + nth % 3;
                            break;
                        }
                        Judged::Conflict { version: now } => {
                            conflicts += 1;
                            version = now;
                        }
                        other @ (Judged::SlugTaken | Judged::Done { .. }) => panic!("{other:?}"),
                    }
                }
            }
            (recorded, conflicts)
        });
    }
    let outcomes = tasks.join_all().await;
    let recorded: usize = outcomes.iter().map(|(recorded, _)| recorded).sum();
    let conflicts: usize = outcomes.iter().map(|(_, conflicts)| conflicts).sum();
    assert!(conflicts > 0, "nobody met anybody");

    let mut connection = database.connect().await;
    let log = log(&mut connection).await;
    assert_eq!(log.len(), recorded);
    let mut ends: HashMap<&str, i64> = HashMap::new();
    for ((position, stream, sequence), expected) in log.iter().zip(1..) {
        assert_eq!(*position, expected, "the positions have a hole");
        let end = ends.entry(stream).or_default();
        assert_eq!(*sequence, *end + 1, "{stream} is out of order at position {position}");
        *end += 1;
    }
}

#[tokio::test]
async fn a_refused_commit_harms_no_neighbour_in_its_batch() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    writer.append(claiming("owner", 0, "taken")).await.unwrap();

    let batch = [
        commit("before", 0, 2),
        commit("owner", 0, 1),
        claiming("thief", 0, "taken"),
        claiming("heir", 0, "free"),
        commit("after", 0, 1),
    ];
    let judged = in_one_batch(&database, &writer, batch).await;
    assert_eq!(
        judged.map(Result::unwrap),
        [
            Judged::Recorded { version: 2, position: Position(3) },
            Judged::Conflict { version: 1 },
            Judged::SlugTaken,
            Judged::Recorded { version: 1, position: Position(4) },
            Judged::Recorded { version: 1, position: Position(5) },
        ]
    );
    let streams: Vec<String> =
        log(&mut database.connect().await).await.into_iter().map(|(_, stream, _)| stream).collect();
    // The one that held the batch back is not among them: it records nothing.
    assert_eq!(streams, ["owner", "before", "before", "heir", "after"]);
}

#[tokio::test]
async fn a_commit_that_fails_in_sql_fails_alone() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    let mut bad = commit("bad", 0, 1);
    bad.events[0].payload = r#"{"text":"\u0000"}"#.to_owned();

    let batch = [commit("before", 0, 1), bad, commit("after", 0, 1)];
    let [before, bad, after] = in_one_batch(&database, &writer, batch).await;
    assert!(matches!(before, Ok(Judged::Recorded { .. })), "{before:?}");
    assert!(matches!(bad, Err(AppendError::Rejected(_))), "{bad:?}");
    assert!(matches!(after, Ok(Judged::Recorded { .. })), "{after:?}");
    let positions: Vec<i64> = log(&mut database.connect().await)
        .await
        .into_iter()
        .map(|(position, ..)| position)
        .collect();
    assert_eq!(positions, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_commits_of_one_stream_never_tear() {
    let database = new_database().await;
    let processes = [start_writer(&database).await, start_writer(&database).await];
    for round in 0..50 {
        let stream = format!("stream-{round}");
        // One event against two, so that the longer would stick out if both were let in.
        let (one, two) = tokio::join!(
            processes[0].append(commit(&stream, 0, 1)),
            processes[1].append(commit(&stream, 0, 2)),
        );
        let length: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE aggregate_id = $1")
            .bind(&stream)
            .fetch_one(&mut database.connect().await)
            .await
            .unwrap();
        match (one.unwrap(), two.unwrap()) {
            (Judged::Recorded { version: 1, .. }, Judged::Conflict { version: 1 }) => {
                assert_eq!(length, 1);
            }
            (Judged::Conflict { version: 2 }, Judged::Recorded { version: 2, .. }) => {
                assert_eq!(length, 2);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_commit_sent_again_is_answered_as_recorded_and_recorded_once() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    let first = writer.append(numbered_from("stream", 1)).await.unwrap();
    let position = Position(2);
    assert_eq!(first, Judged::Recorded { version: 2, position });
    writer.append(commit("stream", 2, 1)).await.unwrap();

    assert_eq!(writer.append(numbered_from("stream", 1)).await.unwrap(), first);
    // Other events at the same place are another commit.
    let other = writer.append(numbered_from("stream", 100)).await.unwrap();
    assert_eq!(other, Judged::Conflict { version: 3 });
    assert_eq!(log(&mut database.connect().await).await.len(), 3);
}

#[tokio::test]
async fn a_commit_without_events_asks_for_the_present_version() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    writer.append(commit("stream", 0, 2)).await.unwrap();
    writer.append(commit("other", 0, 1)).await.unwrap();

    let position = Position(2);
    assert_eq!(
        writer.append(commit("stream", 2, 0)).await.unwrap(),
        Judged::Recorded { version: 2, position }
    );
    assert_eq!(
        writer.append(commit("stream", 1, 0)).await.unwrap(),
        Judged::Conflict { version: 2 }
    );
}

#[tokio::test]
async fn a_slug_stays_with_its_post_for_ever() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    writer.append(claiming("a", 0, "first")).await.unwrap();
    writer.append(claiming("a", 1, "second")).await.unwrap();

    assert_eq!(writer.append(claiming("b", 0, "first")).await.unwrap(), Judged::SlugTaken);
    let back = writer.append(claiming("a", 2, "first")).await.unwrap();
    assert!(matches!(back, Judged::Recorded { version: 3, .. }), "{back:?}");
}

#[tokio::test]
async fn one_slug_wanted_by_many_goes_to_one() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let writer = writer.clone();
        tasks.spawn(async move {
            writer.append(claiming(&format!("post-{number}"), 0, "wanted")).await
        });
    }
    let judged: Vec<Judged> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    let winners = judged.iter().filter(|judged| matches!(judged, Judged::Recorded { .. })).count();
    assert_eq!(winners, 1);
    assert!(judged.iter().all(|judged| !matches!(judged, Judged::Conflict { .. })));
}

#[tokio::test]
async fn an_event_written_past_the_function_is_refused() {
    let database = new_database().await;
    let error = sqlx::query(
        "INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata)
         VALUES ('post', 'stream', 1, 'post.deleted', '1', '{}', '{}')",
    )
    .execute(&mut database.connect().await)
    .await
    .unwrap_err();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "23502", "{error}");
}

#[tokio::test]
async fn the_store_serves_the_framework_that_the_aggregates_are_written_for() {
    let database = new_database().await;
    let pool = PgPool::connect(database.url()).await.unwrap();
    let writer = start_writer(&database).await;
    let store = Store::<Post>::new(pool, writer, Partitions::new(4).unwrap());
    let framework = CqrsFramework::new(store, vec![], ());
    let by: AuthorId = "anne".parse().unwrap();
    let draft = || PostCommand::Draft {
        author: Author { id: by.clone(), name: None },
        content: PostContent {
            title: "On writing".to_owned().try_into().unwrap(),
            content: "Begin.".to_owned().try_into().unwrap(),
            summary: Summary::default(),
            tags: vec![],
        },
        slug: None,
    };
    framework.execute("a-post", draft()).await.unwrap();
    let again = framework.execute("a-post", draft()).await.unwrap_err();
    assert!(matches!(again, AggregateError::UserError(PostError::AlreadyExists)), "{again}");
    framework.execute("a-post", PostCommand::Delete { by: by.clone() }).await.unwrap();
    assert_eq!(log(&mut database.connect().await).await.len(), 2);
}

#[tokio::test]
async fn a_clock_that_goes_back_a_little_does_not_take_the_time_of_events_with_it() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    writer.append(commit("a", 0, 1)).await.unwrap();
    let ahead = move_last_event(&database, "1 hour").await;
    // A minute is the limit, and the machine may stand still for a while.
    move_last_event(&database, "-59 minutes -5 seconds").await;
    let mut keyed = commit("b", 0, 1);
    keyed.kept = Some(kept("k-1"));
    writer.append(keyed).await.unwrap();
    let (event, key): (f64, f64) = sqlx::query_as(
        "SELECT extract(epoch FROM (SELECT recorded_at FROM events WHERE position = 2))::float8,
                extract(epoch FROM (SELECT recorded_at FROM idempotency_keys))::float8",
    )
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap();
    let followed = ahead - 59.0 * 60.0 - 5.0;
    assert!(event >= followed - 0.001, "the event is {} s early", followed - event);
    assert!(key < event, "the key has the time of the event");
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_does_not_stop_the_time_of_later_events() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    writer.append(commit("a", 0, 1)).await.unwrap();
    let ahead = move_last_event(&database, "1 hour").await;
    writer.append(commit("b", 0, 1)).await.unwrap();
    let next = move_last_event(&database, "0").await;
    assert!(next < ahead - 1800.0, "the event is {} s ahead", next - ahead + 3600.0);
}

#[tokio::test]
async fn commits_that_find_no_room_are_told_at_once() {
    let database = new_database().await;
    let (writer, task) = writer(database.url().parse().unwrap(), limits(4), Arc::default());
    tokio::spawn(task.run());
    let mut held = hold_the_lock(&database).await;
    let waiting: Vec<_> = (0..4)
        .map(|number| {
            let writer = writer.clone();
            tokio::spawn(
                async move { writer.append(commit(&format!("stream-{number}"), 0, 1)).await },
            )
        })
        .collect();
    eventually("the queue is full", async || {
        // One that finds room would wait for the lock.
        let late = writer.append(commit("late", 0, 1));
        let told = tokio::time::timeout(Duration::from_millis(50), late).await;
        matches!(told, Ok(Err(AppendError::Overloaded)))
    })
    .await;

    release_the_lock(&mut held).await;
    for waiting in waiting {
        let judged = waiting.await.unwrap();
        assert!(
            matches!(judged, Ok(Judged::Recorded { .. }) | Err(AppendError::Overloaded)),
            "{judged:?}"
        );
    }
}

/// Moves the time of the last event, and returns it in seconds.
async fn move_last_event(database: &TestDatabase, by: &str) -> f64 {
    sqlx::query_scalar(
        "UPDATE events SET recorded_at = recorded_at + $1::interval
         WHERE position = (SELECT max(position) FROM events)
         RETURNING extract(epoch FROM recorded_at)::float8",
    )
    .bind(by)
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap()
}

/// Hands in these commits so that they go to Postgres in one call: behind one that waits for the lock.
pub(crate) async fn in_one_batch<const N: usize>(
    database: &TestDatabase,
    writer: &Writer,
    commits: [Commit; N],
) -> [Result<Judged, AppendError>; N] {
    let mut held = hold_the_lock(database).await;
    let mut watcher = database.connect().await;
    let append = |commit| {
        let writer = writer.clone();
        tokio::spawn(async move { writer.append(commit).await })
    };
    let first = append(commit("nobody", 0, 0));
    eventually("the first call waits for the lock", async || {
        waiting_for_the_lock(&mut watcher).await >= 1
    })
    .await;
    let mut appends = Vec::new();
    for commit in commits {
        appends.push(append(commit));
        // Each is in the queue before the next one is handed in.
        tokio::task::yield_now().await;
    }
    release_the_lock(&mut held).await;
    first.await.unwrap().unwrap();
    let mut judged = Vec::new();
    for append in appends {
        judged.push(append.await.unwrap());
    }
    judged.try_into().unwrap()
}

pub(crate) async fn hold_the_lock(database: &TestDatabase) -> PgConnection {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(6909547)").execute(&mut connection).await.unwrap();
    connection
}

pub(crate) async fn release_the_lock(connection: &mut PgConnection) {
    sqlx::query("SELECT pg_advisory_unlock(6909547)").execute(connection).await.unwrap();
}

pub(crate) async fn waiting_for_the_lock(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
         WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

pub(crate) async fn start_writer(database: &TestDatabase) -> Writer {
    start_writer_at(database.url())
}

pub(crate) fn start_writer_at(url: &str) -> Writer {
    let (writer, task) = writer(url.parse().unwrap(), limits(16_384), Arc::default());
    tokio::spawn(task.run());
    writer
}

fn limits(kib: u32) -> QueueLimits {
    QueueLimits { kib, wait: Duration::MAX }
}

pub(crate) async fn log(connection: &mut PgConnection) -> Vec<(i64, String, i64)> {
    sqlx::query_as("SELECT position, aggregate_id, sequence FROM events ORDER BY position")
        .fetch_all(connection)
        .await
        .unwrap()
}

pub(crate) fn commit(stream: &str, version: u64, events: usize) -> Commit {
    let ids = (0..events).map(|_| Uuid::now_v7());
    with_ids(stream, version, ids)
}

/// Two events whose ids are numbers.
fn numbered_from(stream: &str, first: u128) -> Commit {
    with_ids(stream, 0, [first, first + 1].map(Uuid::from_u128))
}

pub(crate) fn kept(key: &str) -> Kept {
    let author = "anne".parse().unwrap();
    Kept { author, key: key.to_owned(), request_hash: [7; 32], answer: "{}".to_owned() }
}

pub(crate) fn claiming(stream: &str, version: u64, slug: &str) -> Commit {
    let slug: Slug = slug.parse().unwrap();
    Commit { slug: Some(slug), ..commit(stream, version, 1) }
}

pub(crate) fn with_ids(stream: &str, version: u64, ids: impl IntoIterator<Item = Uuid>) -> Commit {
    let event = |id| NewEvent {
        id,
        event_type: "post.deleted".to_owned(),
        event_version: "1".to_owned(),
        payload: r#"{"deleted":{}}"#.to_owned(),
    };
    let events: Vec<NewEvent> = ids.into_iter().map(event).collect();
    Commit {
        uid: events.first().map_or_else(Uuid::now_v7, |event| event.id),
        aggregate_type: "post",
        aggregate_id: stream.to_owned(),
        version,
        partition: 0,
        slug: None,
        events,
        kept: None,
        metadata: "{}".to_owned(),
    }
}

//! How fast the store appends, against pgbench inserting the same rows one by one.
//!
//! Both write one event of about 1.2 kB with 0.2 kB of metadata and one slug for each commit, and then the same
//! with an idempotency key beside them, into tables with the same columns and indexes on the same server, from
//! 64 clients. They take turns, so that noise on the machine meets both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use command_service::store::{Commit, Kept, NewEvent, QueueLimits, Writer, writer};
use domain::Partitions;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Args;
use crate::figures::median;
use crate::load::CLIENTS;
use crate::pgbench;
use crate::report::Report;
use crate::store::NewStore;

/// Nobody is turned away here: what is measured is the rate, and all who append wait for it.
pub(crate) const UNLIMITED: QueueLimits = QueueLimits { kib: 16_384, wait: Duration::MAX };

/// What is written for each commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    EventAndSlug,
    EventSlugAndKey,
}

/// The names of the figures in the JSON file: ours, pgbench's, and their ratio.
type Keys = [&'static str; 3];

pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let keys = ["append_per_s", "pgbench_per_s", "append_vs_pgbench"];
    compare(Rows::EventAndSlug, "one event and one slug", keys, args, report).await?;
    let keys = ["append_keyed_per_s", "pgbench_keyed_per_s", "append_keyed_vs_pgbench"];
    compare(Rows::EventSlugAndKey, "one event, one slug and one key", keys, args, report).await
}

async fn compare(
    rows: Rows,
    what: &str,
    [append, pgbench, ratio]: Keys,
    args: &Args,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        report.progress(&format!("appending {what}, round {round} of {}", args.rounds));
        theirs.push(inserts_per_second(rows, args.seconds).await?);
        ours.push(appends_per_second(rows, args.seconds).await?);
    }
    let (ours, theirs) = (median(&ours), median(&theirs));
    report.heading(&format!(
        "Appends of {what}, {CLIENTS} clients, medians of {} × {} s",
        args.rounds, args.seconds
    ));
    report.figure(append, "append_events, grouped in the process, one writer", ours, "commits/s");
    report.figure(pgbench, "pgbench -M prepared, one statement for each", theirs, "commits/s");
    report.figure(ratio, "ratio", ours / theirs, "");
    Ok(())
}

/// What pgbench does on a store of its own.
pub(crate) async fn inserts_per_second(rows: Rows, seconds: u32) -> anyhow::Result<f64> {
    let store = NewStore::create().await?;
    pgbench::inserts_per_second(store.database.url(), rows, seconds)
}

async fn appends_per_second(rows: Rows, seconds: u32) -> anyhow::Result<f64> {
    let NewStore { database, pool, partitions } = NewStore::create().await?;
    let (writer, task) = writer(database.url().parse()?, UNLIMITED, Arc::default());
    tokio::spawn(task.run());
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds.into());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(append_until(end, rows, writer.clone(), partitions));
    }
    let mut recorded = 0;
    while let Some(client) = clients.join_next().await {
        recorded += client??;
    }
    let rate = recorded as f64 / began.elapsed().as_secs_f64();

    let (events, head, slugs): (i64, i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(max(position), 0), (SELECT count(*) FROM slugs) FROM events",
    )
    .fetch_one(&pool)
    .await?;
    anyhow::ensure!(
        events == head && events == slugs && events == recorded,
        "recorded {recorded}, but the log has {events} events up to {head}, and {slugs} slugs: {}",
        database.name()
    );
    Ok(rate)
}

async fn append_until(
    end: Instant,
    rows: Rows,
    writer: Writer,
    partitions: Partitions,
) -> anyhow::Result<i64> {
    let mut recorded = 0;
    while Instant::now() < end {
        let id = Uuid::now_v7().to_string();
        let event_id = Uuid::now_v7();
        let commit = Commit {
            uid: event_id,
            aggregate_type: "post",
            partition: partitions.of(&id).0,
            version: 0,
            slug: Some(format!("on-writing-{}", Uuid::now_v7().simple()).parse()?),
            events: vec![NewEvent {
                id: event_id,
                event_type: "post.drafted".to_owned(),
                event_version: "1".to_owned(),
                payload: payload(),
            }],
            metadata: metadata(),
            kept: (rows == Rows::EventSlugAndKey).then(|| kept(&id)).transpose()?,
            aggregate_id: id,
        };
        writer.append(commit).await?;
        recorded += 1;
    }
    Ok(recorded)
}

/// What is kept of a post that was made.
fn kept(id: &str) -> anyhow::Result<Kept> {
    Ok(Kept {
        author: "anne".parse()?,
        key: Uuid::now_v7().to_string(),
        request_hash: [7; 32],
        answer: ANSWER.replace("ID", id),
    })
}

/// How such an answer reads; with the space, since pgbench takes `:true` for a variable of its own.
pub(crate) const ANSWER: &str =
    r#"{"done":{"post_id":"ID","slug":"on-writing-ID","status":"published","created": true}}"#;

/// About 1.2 kB, as a short post makes.
pub(crate) fn payload() -> String {
    let text = "Begin at the beginning, and go on till you come to the end. ".repeat(18);
    format!(
        r#"{{"drafted":{{"author":{{"id":"anne","name":"Anne"}},"content":{{"title":"On writing","content":"{text}","summary":"How to begin","tags":["craft"]}}}}}}"#
    )
}

/// About 0.2 kB.
pub(crate) fn metadata() -> String {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    format!(r#"{{"actor":"anne","traceparent":"{trace}","note":"{}"}}"#, "x".repeat(80))
}

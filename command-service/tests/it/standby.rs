//! A synchronous standby that is away: no commit is acknowledged that it does not have.

use std::str::FromStr as _;
use std::time::{Duration, Instant};

use command_service::config::Command;
use command_service::migrate;
use command_service::store::Judged;
use domain::Position;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, Executor as _, PgConnection};
use testkit::{Postgres, eventually, own_postgres};
use uuid::Uuid;

use crate::append::{commit, kept, log, start_writer_at, with_ids};

#[tokio::test]
async fn a_commit_that_waits_for_its_standby_is_answered_when_it_need_not_any_more() {
    let (server, url) = start().await;
    let writer = start_writer_at(&url);
    let mut watcher = PgConnection::connect(&url).await.unwrap();
    let append = {
        let writer = writer.clone();
        tokio::spawn(async move { writer.append(commit("stream", 0, 1)).await })
    };
    eventually("it waits for its standby", async || waiting(&mut watcher).await == 1).await;
    // Longer than two calls may take.
    let (end, mut most) = (Instant::now() + Duration::from_secs(12), 0);
    while Instant::now() < end {
        most = most.max(backends(&mut watcher).await);
        // Nothing shows it to readers before the standby has it.
        assert_eq!(log(&mut watcher).await.len(), 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!((1..=2).contains(&most), "{most} backends at once");
    assert!(!append.is_finished());

    need_a_standby(&url, false).await;
    let judged = append.await.unwrap().unwrap();
    assert_eq!(judged, Judged::Recorded { version: 1, position: Position(1) });
    assert_eq!(log(&mut watcher).await.len(), 1);
    drop(server);
}

#[tokio::test]
async fn what_an_earlier_call_left_is_not_acknowledged_before_the_standby_has_it() {
    let (server, url) = start().await;
    let writer = start_writer_at(&url);
    let mut watcher = PgConnection::connect(&url).await.unwrap();
    let id = Uuid::now_v7();
    let resent = {
        let writer = writer.clone();
        let mut keyed = with_ids("stream", 0, [id]);
        keyed.kept = Some(kept("k-1"));
        tokio::spawn(async move { writer.append(keyed).await })
    };
    eventually("it waits for its standby", async || waiting(&mut watcher).await == 1).await;
    // Cut off, it shows its commit, which only this server has.
    cut_off(&mut watcher).await;
    eventually("the commit is shown", async || log(&mut watcher).await.len() == 1).await;
    eventually("its repetition waits", async || waiting(&mut watcher).await == 1).await;
    assert!(!resent.is_finished());

    need_a_standby(&url, false).await;
    let recorded = Judged::Recorded { version: 1, position: Position(1) };
    assert_eq!(resent.await.unwrap().unwrap(), recorded);

    // A commit sent again, a question about the version, and the same request once more.
    let done = Judged::Done {
        version: 1,
        position: Position(1),
        request_hash: kept("").request_hash.to_vec(),
        answer: "{}".to_owned(),
    };
    let mut repetition = commit("other", 0, 1);
    repetition.kept = Some(kept("k-1"));
    for (asked, answer) in [
        (with_ids("stream", 0, [id]), recorded.clone()),
        (commit("stream", 1, 0), recorded),
        (repetition, done),
    ] {
        need_a_standby(&url, true).await;
        let writer = writer.clone();
        let asked = tokio::spawn(async move { writer.append(asked).await });
        eventually("the answer waits", async || waiting(&mut watcher).await == 1).await;
        assert!(!asked.is_finished());
        need_a_standby(&url, false).await;
        assert_eq!(asked.await.unwrap().unwrap(), answer);
    }
    assert_eq!(log(&mut watcher).await.len(), 1);
    drop(server);
}

/// A server whose commits wait for a standby that does not exist, and the address of a store on it.
async fn start() -> (Postgres, String) {
    let server = own_postgres().await;
    server.ensure_database("inkstream").await.unwrap();
    let url = server.url("inkstream");
    let words = ["command-service", "migrate", "--partitions", "4", "--database-url", &url];
    match Command::try_parse_from(words) {
        Ok(Command::Migrate(args)) => migrate::run(&args).await.unwrap(),
        other => panic!("expected to migrate: {other:?}"),
    }
    need_a_standby(&url, true).await;
    (server, url)
}

/// Has commits wait for a standby that does not exist, or not any more.
async fn need_a_standby(url: &str, needed: bool) {
    let mut watcher = PgConnection::connect(url).await.unwrap();
    let name = if needed { "absent" } else { "" };
    let statement = format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'");
    watcher.execute(statement.as_str()).await.unwrap();
    watcher.execute("SELECT pg_reload_conf()").await.unwrap();
    let address = PgConnectOptions::from_str(url).unwrap().application_name("probe");
    // No setting shows it: a process of the server puts it in force a little later.
    eventually("the setting is in force", async || {
        let mut probe = PgConnection::connect_with(&address).await.unwrap();
        let commit = probe.execute("SELECT pg_logical_emit_message(true, 'probe', '')");
        let waits = tokio::time::timeout(Duration::from_millis(300), commit).await.is_err();
        waits == needed
    })
    .await;
    eventually("no probe is left", async || {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'probe'";
        watcher.execute(end).await.unwrap();
        count(&mut watcher, "application_name = 'probe'").await == 0
    })
    .await;
}

/// How many commits wait for the standby.
async fn waiting(watcher: &mut PgConnection) -> i64 {
    count(watcher, "wait_event = 'SyncRep'").await
}

/// How many backends of the writer there are.
async fn backends(watcher: &mut PgConnection) -> i64 {
    count(watcher, "application_name = 'command-service writer'").await
}

async fn count(watcher: &mut PgConnection, condition: &str) -> i64 {
    let statement = format!("SELECT count(*) FROM pg_stat_activity WHERE {condition}");
    sqlx::query_scalar(&statement).fetch_one(watcher).await.unwrap()
}

/// Terminates what waits for the standby.
async fn cut_off(watcher: &mut PgConnection) {
    let statement =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    watcher.execute(statement).await.unwrap();
}

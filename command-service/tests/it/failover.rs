//! Postgres answers and takes no writes, or does not answer at all.

use std::time::Duration;

use event_log::{PoolSettings, StoreError};
use reqwest::Method;
use serde_json::json;
use sqlx::{Connection as _, Executor as _, PgConnection};
use testkit::{Postgres, Proxy, eventually, own_postgres, own_standby_of, shared, unique_name};

use crate::support::{Service, create_store, new_database, start_on, start_with, told};

/// Much longer than a test lasts: only an answer that waits for nothing comes before.
const A_LONG_TIME: &str = "--request-seconds=300";

#[tokio::test]
async fn commands_and_the_relay_go_on_after_a_failover_without_a_restart() {
    let old = own_postgres().await;
    old.ensure_database("blog").await.unwrap();
    create_store(old.url("blog")).await.unwrap();
    let new = own_standby_of(&old).await;
    let proxy = Proxy::start(&old.address());
    let url = old.url("blog").replace(&old.address(), &proxy.address());
    let service = start_on(&url, &["--lease-seconds=2"]).await;
    let (status, post) = draft(&service).await;
    assert_eq!(status, 201, "{post}");
    eventually("the relay carries it", async || outbox(&old).await == 0).await;
    eventually("the standby has it", async || {
        let mut standby = connect(&new).await;
        let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events")
            .fetch_one(&mut standby)
            .await
            .unwrap();
        events > 0
    })
    .await;

    // Connections to the old server live on.
    old.set_read_only(true).await.unwrap();
    new.promote().await.unwrap();
    proxy.lead_to(&new.address());
    eventually("commands are recorded on the new server", async || {
        draft(&service).await.0 == 201 && outbox(&new).await < i64::MAX
    })
    .await;
    eventually("the relay carries them", async || outbox(&new).await == 0).await;
    eventually("the service is ready", async || ready(&service).await.0 == 200).await;
}

#[tokio::test]
async fn a_read_only_database_is_known_and_rejects_commands_at_once() {
    let postgres = own_postgres().await;
    postgres.ensure_database("blog").await.unwrap();
    create_store(postgres.url("blog")).await.unwrap();
    let service = start_on(&postgres.url("blog"), &[A_LONG_TIME]).await;
    assert_eq!(draft(&service).await.0, 201);

    postgres.set_read_only(true).await.unwrap();
    eventually("the service is not ready", async || {
        let (status, why) = ready(&service).await;
        status == 503 && why.contains("Postgres is read-only")
    })
    .await;
    let rejected = tokio::time::timeout(Duration::from_secs(45), draft(&service)).await;
    assert_eq!(rejected.expect("it waits for Postgres").0, 503);

    postgres.set_read_only(false).await.unwrap();
    eventually("the service is ready again", async || ready(&service).await.0 == 200).await;
    assert_eq!(draft(&service).await.0, 201);
}

#[tokio::test]
async fn sessions_that_were_opened_read_only_are_renewed() {
    let postgres = own_postgres().await;
    postgres.ensure_database("blog").await.unwrap();
    create_store(postgres.url("blog")).await.unwrap();
    let service = start_on(&postgres.url("blog"), &[A_LONG_TIME]).await;
    // What it says holds for new sessions only, until they end.
    let all_sessions = async |setting: &str| {
        let mut connection = connect(&postgres).await;
        let statement =
            format!("ALTER DATABASE blog SET default_transaction_read_only = {setting}");
        connection.execute("SET default_transaction_read_only = off").await.unwrap();
        connection.execute(statement.as_str()).await.unwrap();
        connection
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'command-service'",
            )
            .await
            .unwrap();
    };
    all_sessions("on").await;
    eventually("the service is not ready", async || {
        let (status, why) = ready(&service).await;
        status == 503 && why.contains("Postgres is read-only")
    })
    .await;
    let mut connection = connect(&postgres).await;
    connection.execute("SET default_transaction_read_only = off").await.unwrap();
    let off = "ALTER DATABASE blog SET default_transaction_read_only = off";
    connection.execute(off).await.unwrap();
    eventually("the service is ready again", async || ready(&service).await.0 == 200).await;
    eventually("commands are recorded", async || draft(&service).await.0 == 201).await;
    eventually("the relay carries them", async || outbox(&postgres).await == 0).await;
}

#[tokio::test]
async fn a_batch_that_postgres_holds_up_is_known_by_the_name_of_its_task() {
    let service = start_with(new_database().await, &[]).await;
    eventually("the service is ready", async || ready(&service).await.0 == 200).await;
    let mut connection = service.database().connect().await;
    let mut lock = connection.begin().await.unwrap();
    lock.execute("LOCK TABLE events IN EXCLUSIVE MODE").await.unwrap();
    let held_up = async {
        eventually("the writer is named", async || {
            let (status, why) = ready(&service).await;
            status == 503 && why.contains("`writer` has made no progress")
        })
        .await;
        let live = service.ops("/health/live").await;
        assert_eq!(live.status(), 200, "a restart does not help");
        lock.rollback().await.unwrap();
    };
    let (command, ()) = tokio::join!(draft(&service), held_up);
    assert_eq!(command.0, 201, "{command:?}");
    eventually("the service is ready again", async || ready(&service).await.0 == 200).await;
}

#[tokio::test]
async fn a_postgres_that_hangs_is_known() {
    let database = new_database().await;
    let (proxy, url) = shared().postgres_proxy(database.name());
    let service = start_on(&url, &[]).await;
    eventually("the service is ready", async || ready(&service).await.0 == 200).await;
    proxy.stall();
    eventually("the service is not ready", async || {
        let (status, why) = ready(&service).await;
        status == 503 && why.contains("\"postgres\":{\"ready\":false")
    })
    .await;
    proxy.restore();
    eventually("the service is ready again", async || ready(&service).await.0 == 200).await;
}

#[tokio::test]
async fn what_waiting_does_not_change_ends_the_start_with_its_name() {
    let database = new_database().await;
    let stranger = unique_name("stranger");
    let mut superuser = database.connect().await;
    superuser.execute(format!("CREATE ROLE {stranger} LOGIN").as_str()).await.unwrap();
    let (_, server) = database.url().split_once('@').unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();
    // Dropped at once, so it refuses connections.
    let (_, refusing) = shared().postgres_proxy(database.name());
    let unknown = unique_name("unknown");
    for (url, why) in [
        (database.url().replace(database.name(), &unknown), "does not exist"),
        (format!("postgres://{unknown}@{server}/{}", database.name()), "does not exist"),
        (format!("postgres://{stranger}@{server}/{}", database.name()), "permission denied"),
    ] {
        let error = open(&url).await.expect("it waits").unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(why), "{url}: {cause}");
    }
    assert!(open(&refusing).await.is_none(), "a server that may still start is not waited for");
}

/// Opens a store with more patience than the test has; `None` if it waits.
async fn open(url: &str) -> Option<Result<event_log::Store, StoreError>> {
    let settings = PoolSettings {
        name: "test",
        connections: 1,
        acquire_limit: Duration::from_secs(3600),
        options: &[],
        for_scans: false,
    };
    let pool = event_log::pool(url, settings).unwrap();
    let (waits, waited) = tokio::sync::mpsc::unbounded_channel();
    let patience = Duration::from_secs(3600);
    let opening = event_log::open_within(patience, &pool, |_| {
        // It is received as long as there is something to wait for.
        let _ = waits.send(());
    });
    let mut waited = waited;
    tokio::select! {
        outcome = opening => Some(outcome),
        _ = waited.recv() => None,
    }
}

async fn draft(service: &Service) -> (u16, serde_json::Value) {
    let post = json!({ "title": "On failing over", "content": "Begin." });
    told(service.anne(Method::POST, "/posts").json(&post)).await
}

async fn ready(service: &Service) -> (u16, String) {
    let answer = service.ops("/health/ready").await;
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn connect(postgres: &Postgres) -> PgConnection {
    PgConnection::connect(&postgres.url("blog")).await.unwrap()
}

/// How many events wait to be published.
async fn outbox(postgres: &Postgres) -> i64 {
    let mut connection = connect(postgres).await;
    sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&mut connection).await.unwrap()
}

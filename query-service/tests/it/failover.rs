//! Postgres answers and is not the primary: what it has may lack what clients have seen.

use std::time::Duration;

use query_service::App;
use testkit::{Postgres, Proxy, eventually, free_port, own_postgres, own_standby_of, shared};

use crate::support::{Blog, Reader, WITHOUT_MEMORY, create_store};

#[tokio::test]
async fn a_standby_that_lags_behind_answers_no_reader() {
    let (primary, standby) = servers().await;
    let (proxy, url) = through_proxy(&primary);
    let direct = primary.url("blog");
    let blog = Blog::start_behind(&direct, &url, &shared().redis_url, &WITHOUT_MEMORY).await;
    let early = format!("/posts/{}", blog.publish("early").await);
    assert_eq!(blog.reader().get(&early).await.source(), "log");
    has_caught_up(&primary, &standby).await;
    run(&standby, "SELECT pg_wal_replay_pause()").await;
    let late = format!("/posts/{}", blog.publish("late").await);
    assert_eq!(blog.reader().get(&late).await.source(), "log");

    // Everything leads to the standby, which knows nothing of the late post.
    proxy.lead_to(&standby.address());
    proxy.cut();
    proxy.restore();
    eventually("the process says what is wrong", async || {
        assert_ne!(blog.reader().get(&late).await.status, 404);
        let ready = blog.ops().get("/health/ready").await;
        ready.status == 503 && ready.text.contains("it is a hot standby")
    })
    .await;
    for page in [&early, &late] {
        let answer = blog.reader().get(page).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{page}");
    }

    proxy.lead_to(&primary.address());
    eventually("the primary answers again", async || blog.reader().get(&late).await.status == 200)
        .await;
}

#[tokio::test]
async fn connections_to_a_demoted_server_are_dropped() {
    let (old, new) = servers().await;
    let (proxy, url) = through_proxy(&old);
    let direct = old.url("blog");
    let blog = Blog::start_behind(&direct, &url, &shared().redis_url, &WITHOUT_MEMORY).await;
    let early = format!("/posts/{}", blog.publish("early").await);
    assert_eq!(blog.reader().get(&early).await.source(), "log");
    has_caught_up(&old, &new).await;

    // Connections to the old server live on.
    old.set_read_only(true).await.unwrap();
    new.promote().await.unwrap();
    proxy.lead_to(&new.address());
    let after = Blog::without_service(&new.url("blog"), &shared().redis_url).await;
    let late = format!("/posts/{}", after.publish("late").await);
    eventually("readers are answered from the new server", async || {
        blog.reader().get(&late).await.status == 200
    })
    .await;
    for _ in 0..20 {
        assert_eq!(blog.reader().get(&late).await.status, 200);
    }
}

#[tokio::test]
async fn a_service_that_starts_on_a_standby_waits_until_that_is_promoted() {
    let (primary, standby) = servers().await;
    has_caught_up(&primary, &standby).await;
    let mut blog = Blog::without_service(&primary.url("blog"), &shared().redis_url).await;
    blog.settings.database_url = standby.url("blog");
    let ops = format!("127.0.0.1:{}", free_port().unwrap());
    let address = Box::leak(ops.clone().into_boxed_str());
    blog.settings.options = vec!["--start-seconds=120", "--ops-address", address];
    let starting = tokio::spawn(App::build(blog.config()));
    let reader = Reader::new(ops.parse().unwrap());
    eventually("it says what it waits for", async || {
        let Some(ready) = reader.try_get("/health/ready").await else { return false };
        ready.status == 503 && ready.text.contains("it is a hot standby")
    })
    .await;
    assert_eq!(reader.get("/health/live").await.status, 200);
    standby.promote().await.unwrap();
    let started = tokio::time::timeout(Duration::from_secs(45), starting).await;
    started.expect("it does not start").unwrap().unwrap();
}

/// A primary with a store, and its standby.
async fn servers() -> (Postgres, Postgres) {
    let primary = own_postgres().await;
    primary.ensure_database("blog").await.unwrap();
    create_store(primary.url("blog")).await.unwrap();
    let standby = own_standby_of(&primary).await;
    (primary, standby)
}

fn through_proxy(postgres: &Postgres) -> (Proxy, String) {
    let proxy = Proxy::start(&postgres.address());
    let url = postgres.url("blog").replace(&postgres.address(), &proxy.address());
    (proxy, url)
}

async fn run(postgres: &Postgres, statement: &str) -> String {
    let pool = sqlx::PgPool::connect(&postgres.url("blog")).await.unwrap();
    let statement = format!("SELECT ({statement})::text");
    sqlx::query_scalar::<_, Option<String>>(&statement)
        .fetch_one(&pool)
        .await
        .unwrap()
        .unwrap_or_default()
}

async fn has_caught_up(primary: &Postgres, standby: &Postgres) {
    let written = run(primary, "SELECT pg_current_wal_lsn()").await;
    let question = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
    eventually("the standby has it all", async || run(standby, &question).await == "true").await;
}

//! Servers of a test's own come back on the same port, with what they are meant to keep.

use std::time::Duration;

use sqlx::{Connection, Executor, PgConnection};
use testkit::{
    Launch, Place, Redis, RedisOptions, Signal, create_topic, eventually, own_kafka, own_postgres,
    own_redis, own_redis_with, patient_connection, topic_partitions,
};

async fn redis_says(url: &str, words: &[&str]) -> anyhow::Result<Option<String>> {
    let mut connection = patient_connection(url).await?;
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(word);
    }
    Ok(command.query_async(&mut connection).await?)
}

#[tokio::test]
async fn a_killed_redis_is_gone_and_comes_back_empty_on_its_port() {
    let mut redis = own_redis().await;
    let url = redis.url();
    redis_says(&url, &["SET", "post", "kept?"]).await.unwrap();

    redis.kill().unwrap();
    assert!(redis_says(&url, &["GET", "post"]).await.is_err());

    redis.restart().await.unwrap();
    assert_eq!(redis.url(), url);
    assert_eq!(redis_says(&url, &["GET", "post"]).await.unwrap(), None);
}

#[tokio::test]
async fn a_durable_redis_keeps_what_it_was_told() {
    let place = Place::passing("durable-redis").unwrap();
    let log = place.log();
    let options = RedisOptions { place, port: 0, log, durable: true, settings: vec![] };
    let mut redis = Redis::start(options).await.unwrap();
    redis_says(&redis.url(), &["SET", "post", "kept"]).await.unwrap();

    redis.restart().await.unwrap();

    let kept = redis_says(&redis.url(), &["GET", "post"]).await.unwrap();
    assert_eq!(kept.as_deref(), Some("kept"));
}

#[tokio::test]
async fn a_redis_with_little_memory_refuses_more() {
    let small = [("maxmemory", "2mb"), ("maxmemory-policy", "noeviction")];
    let redis = own_redis_with(&small).await;
    let text = "x".repeat(100_000);

    let mut refusals = Vec::new();
    for number in 0..40 {
        let answer = redis_says(&redis.url(), &["SET", &number.to_string(), &text]).await;
        refusals.extend(answer.err().map(|error| error.to_string()));
    }

    assert!(!refusals.is_empty());
    assert!(refusals.iter().all(|refusal| refusal.contains("OOM")), "{refusals:?}");
}

#[tokio::test]
async fn a_killed_postgres_keeps_what_was_committed() {
    let mut postgres = own_postgres().await;
    postgres.ensure_database("kept").await.unwrap();
    let url = postgres.url("kept");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    connection.execute("CREATE TABLE posts AS SELECT 1 AS id").await.unwrap();

    postgres.kill().unwrap();
    assert!(PgConnection::connect(&url).await.is_err());
    postgres.restart().await.unwrap();

    let mut connection = PgConnection::connect(&url).await.unwrap();
    let id: i32 =
        sqlx::query_scalar("SELECT id FROM posts").fetch_one(&mut connection).await.unwrap();
    assert_eq!(id, 1);
}

#[tokio::test]
async fn a_killed_kafka_keeps_its_topics() {
    let mut kafka = own_kafka().await;
    create_topic(&kafka.brokers(), "events", 3).await;

    kafka.kill().unwrap();
    kafka.restart().await.unwrap();

    assert_eq!(topic_partitions(&kafka.brokers(), "events").await, 3);
    assert_eq!(topic_partitions(&kafka.brokers(), "others").await, 0);
}

#[tokio::test]
async fn a_process_outlives_the_thread_that_started_it_and_not_its_handle() {
    let place = Place::passing("sleep").unwrap();
    let log = place.log();
    let started = std::thread::spawn(move || Launch::new("sleep", "sleep", log).arg("600").start());
    let mut process = started.join().unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    process.require_running().unwrap();

    let folder = format!("/proc/{}", process.id());
    drop(process);
    assert!(!std::path::Path::new(&folder).exists());
}

#[tokio::test]
async fn a_process_that_ignores_the_signal_is_killed_after_the_limit() {
    let place = Place::passing("stubborn").unwrap();
    let stubborn = "trap '' TERM; echo deaf; while :; do sleep 0.05; done";
    let launch = Launch::new("stubborn", "sh", place.log()).args(["-c", stubborn]);
    let mut process = launch.start().unwrap();
    eventually("it has stopped listening", async || process.log_tail(1).contains("deaf")).await;

    let ended = process.stop(Signal::Terminate, Duration::from_millis(300)).await.unwrap();

    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
}

#[tokio::test]
async fn a_process_that_ends_by_itself_is_reported_with_its_last_words() {
    let place = Place::passing("brief").unwrap();
    let launch = Launch::new("brief", "sh", place.log()).args(["-c", "echo farewell; exit 3"]);
    let mut process = launch.start().unwrap();
    eventually("it has ended", async || process.exited().unwrap().is_some()).await;
    let told = process.require_running().unwrap_err().to_string();
    assert!(told.contains("exit code 3") && told.contains("farewell"), "{told}");
}

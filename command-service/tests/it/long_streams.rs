//! Posts with long histories: they are loaded row by row, from a snapshot near their end.

use std::fs;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use testkit::{
    Place, Process, TestDatabase, Way, eventually, eventually_within, free_port, service_process,
    shared, unique_name,
};

use crate::support::{SECRET, Service, new_database, start_through, start_with, token, told};

/// The title of revision `n`.
const TITLES: &str = "jsonb_build_object('title', 'Revision ' || n)";
/// A text of 200 kB for revision `n`.
const LONG_TEXTS: &str = "jsonb_build_object('content', repeat(md5(n::text), 6250))";

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_stream_of_100_000_events_is_loaded_from_a_snapshot() {
    let database = new_database().await;
    let service = start_with(database.clone(), &[]).await;
    let post = draft(&service).await;
    service.stop().await.unwrap();
    revise(&database, &post, 99_998, TITLES).await;
    let service = start_with(database.clone(), &[]).await;
    assert_eq!(rename(&service, &post, "Last").await, (200, json!(100_000)));
    until_snapshot(&database, 100_000).await;
    service.stop().await.unwrap();

    let (proxy, url) = shared().postgres_proxy(database.name());
    let service = start_through(database, &url, &[]).await;
    let (before, begun) = (proxy.carried(Way::Down), Instant::now());
    // The title it has already: only a loaded post knows that there is nothing to record.
    assert_eq!(rename(&service, &post, "Last").await, (200, json!(100_000)));
    println!("the first command after a restart took {:?}", begun.elapsed());
    assert_eq!(rename(&service, &post, "Next").await, (200, json!(100_001)));
    let carried = proxy.carried(Way::Down) - before;
    // The whole stream has some twenty million.
    assert!(carried < 1_000_000, "{carried} bytes were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_without_a_snapshot_is_loaded_in_little_memory_however_long_it_takes() {
    const REVISIONS: u64 = 600;
    let database = new_database().await;
    let service = start_with(database.clone(), &[]).await;
    let post = draft(&service).await;
    service.stop().await.unwrap();
    revise(&database, &post, REVISIONS, LONG_TEXTS).await;

    let (proxy, url) = shared().postgres_proxy(database.name());
    // It takes more than seven seconds to carry 120 MB.
    proxy.slow_down(Way::Down, 16_000_000);
    let process = ServiceProcess::start(&url).await;
    let begun = Instant::now();
    assert_eq!(process.rename(&post, "Last").await, (200, json!(REVISIONS + 2)));
    assert!(begun.elapsed() > Duration::from_secs(5), "{:?}", begun.elapsed());
    let megabytes = process.most_megabytes();
    assert!(megabytes < 110, "the service took {megabytes} MB");
    // They were written while the post was being loaded.
    until_snapshot(&database, REVISIONS / 100 * 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_goes_on_when_its_command_has_been_given_up() {
    let database = new_database().await;
    let service = start_with(database.clone(), &[]).await;
    let post = draft(&service).await;
    service.stop().await.unwrap();
    revise(&database, &post, 30, LONG_TEXTS).await;

    let (proxy, url) = shared().postgres_proxy(database.name());
    // Fifteen seconds for 6 MB, while a command has five.
    proxy.slow_down(Way::Down, 400_000);
    let service = start_through(database, &url, &["--request-seconds=5"]).await;
    assert_eq!(rename(&service, &post, "Last").await.0, 503);
    eventually_within(Duration::from_secs(120), "the post has been loaded", async || {
        rename(&service, &post, "Last").await == (200, json!(32))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_believed_only_if_it_has_our_shape_and_its_event_is_in_the_stream() {
    // In Bob's snapshot the draft is unknown to Anne, so it shows whether it was believed.
    const OF_BOB: &str = "state = jsonb_set(state, '{author}', '\"bob\"')";
    let database = new_database().await;
    let service = start_with(database.clone(), &[]).await;
    let post = draft(&service).await;
    service.stop().await.unwrap();
    revise(&database, &post, 98, TITLES).await;
    let service = start_with(database.clone(), &[]).await;
    assert_eq!(rename(&service, &post, "Hundredth").await, (200, json!(100)));
    assert_eq!(rename(&service, &post, "Last").await, (200, json!(101)));
    service.stop().await.unwrap();

    for (damage, believed) in [
        (OF_BOB.to_owned(), true),
        (format!("{OF_BOB}, shape = 'another'"), false),
        (format!("{OF_BOB}, event_id = gen_random_uuid()"), false),
        (format!("{OF_BOB}, version = 1100"), false),
        ("state = '{}'".to_owned(), false),
        ("state = '[]'".to_owned(), false),
    ] {
        until_snapshot(&database, 100).await;
        let sql = format!("UPDATE aggregate_snapshots SET {damage}");
        database.connect().await.execute(sql.as_str()).await.unwrap();
        let service = start_with(database.clone(), &[]).await;
        let expected = if believed { (404, Value::Null) } else { (200, json!(101)) };
        assert_eq!(rename(&service, &post, "Last").await, expected, "{damage}");
        // What was not believed has been written again.
        service.stop().await.unwrap();
    }
}

async fn draft(service: &Service) -> String {
    let body = json!({ "title": "First", "content": "Begin.", "status": "draft" });
    let (status, post) = told(service.anne(Method::POST, "/posts").json(&body)).await;
    assert_eq!(status, 201, "{post}");
    post["id"].as_str().unwrap().to_owned()
}

/// Gives a post another title. Returns the status and the version.
async fn rename(service: &Service, post: &str, title: &str) -> (u16, Value) {
    let request = service.anne(Method::PATCH, &format!("/posts/{post}"));
    let (status, mut answer) = told(request.json(&json!({ "title": title }))).await;
    (status, answer["version"].take())
}

/// Records so many revisions of a post past the services, in a store that has nothing else; `changes` is SQL.
/// For the relay they are published already.
async fn revise(database: &TestDatabase, post: &str, revisions: u64, changes: &str) {
    let mut connection = database.connect().await;
    let mut transaction = connection.begin().await.unwrap();
    let insert = format!(
        "INSERT INTO events (
             aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
             position, partition, event_id, recorded_at
         )
         SELECT aggregate_type, aggregate_id, sequence + n, 'post.revised', '1',
                jsonb_build_object('revised', jsonb_build_object('changes', {changes})), metadata,
                position + n, partition, gen_random_uuid(), recorded_at
         FROM events, generate_series(1, $2) AS n
         WHERE aggregate_id = $1"
    );
    sqlx::query(&insert)
        .bind(post)
        .bind(revisions.cast_signed())
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction
        .execute("UPDATE relay SET cursor = (SELECT max(position) FROM events)")
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

async fn until_snapshot(database: &TestDatabase, version: u64) {
    let mut connection = database.connect().await;
    eventually("there is a snapshot", async || {
        let stored: Option<i64> = sqlx::query_scalar("SELECT version FROM aggregate_snapshots")
            .fetch_optional(&mut connection)
            .await
            .unwrap();
        stored == Some(version.cast_signed())
    })
    .await;
}

/// The service as a process, whose memory is its own.
struct ServiceProcess {
    url: String,
    process: Process,
    _place: Place,
}

impl ServiceProcess {
    async fn start(database_url: &str) -> Self {
        let place = Place::passing("long-streams").unwrap();
        let address = || format!("127.0.0.1:{}", free_port().unwrap());
        let (http, ops) = (address(), address());
        let settings = [
            ("INKSTREAM_DATABASE_URL", database_url),
            ("INKSTREAM_REDIS_URL", &shared().redis_url),
            ("INKSTREAM_REDIS_PREFIX", &unique_name("views")),
            ("INKSTREAM_KAFKA_BROKERS", &shared().kafka),
            ("INKSTREAM_KAFKA_TOPIC", &unique_name("events")),
            ("INKSTREAM_HTTP_ADDRESS", &http),
            ("INKSTREAM_OPS_ADDRESS", &ops),
            ("INKSTREAM_JWT_SECRET", SECRET),
            ("INKSTREAM_REQUEST_SECONDS", "300"),
        ];
        let log = place.path().join("service.log");
        let process = service_process("command-service", &log, &settings).unwrap();
        eventually("the process is ready", async || {
            let ready = reqwest::get(format!("http://{ops}/health/ready")).await;
            ready.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        Self { url: format!("http://{http}"), process, _place: place }
    }

    async fn rename(&self, post: &str, title: &str) -> (u16, Value) {
        let request = reqwest::Client::new()
            .patch(format!("{}/posts/{post}", self.url))
            .bearer_auth(token("anne"))
            .json(&json!({ "title": title }));
        let (status, mut answer) = told(request).await;
        (status, answer["version"].take())
    }

    /// The most memory that it has had.
    fn most_megabytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }
}

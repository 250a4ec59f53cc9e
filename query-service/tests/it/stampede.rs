//! How often the log is read: many who want the same page at once, and long pages. The numbers of a process are those
//! of all its tests, so each of these looks at a process of its own.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use testkit::{Place, Process, eventually, free_port, service_process, shared};

use crate::support::{Blog, Reader, SECRET, database};

#[tokio::test]
async fn a_stampede_on_a_cold_post_reads_the_log_once() {
    let database = database().await;
    let blog = Blog::without_service(database.url(), &shared().redis_url).await;
    let page = format!("/posts/{}", blog.publish("writing").await);
    blog.begin_epochs().await;
    let process = OwnProcess::start(&blog).await;
    // Then whoever comes too late to share the read finds in memory what it has left.
    eventually("changes are heard", async || {
        process.ops.get("/metrics").await.text.contains("\nmemory_connections_total 1\n")
    })
    .await;

    // Nobody is answered before all have asked, or nearly all: the log is out of reach until then.
    let mut blocker = database.connect().await;
    let mut block = sqlx::Connection::begin(&mut blocker).await.unwrap();
    sqlx::query("LOCK TABLE events").execute(&mut *block).await.unwrap();
    let readers = (0..1000).map(|_| process.reader.get(&page));
    let release = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        block.rollback().await.unwrap();
    };
    let (answers, ()) = tokio::join!(join_all(readers), release);

    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(process.folds().await, 1);
}

#[tokio::test]
async fn pages_with_long_histories_are_not_folded_together() {
    let database = database().await;
    let blog = Blog::without_service(database.url(), &shared().redis_url).await;
    let mut ids = vec![];
    for number in 0..5 {
        let slug = format!("post-{number}");
        let id = blog.write("anne", &slug, json!({"content": "x".repeat(1 << 20)})).await;
        blog.record(id, json!({"published": {"slug": slug}})).await;
        ids.push(id);
    }
    blog.project().await;
    for id in ids {
        blog.evict(id).await;
    }
    let process = OwnProcess::start(&blog).await;
    let list = process.reader.get("/posts").await;
    assert_eq!((list.status, list.json()["items"].as_array().unwrap().len()), (200, 5));
    // All are too long together. Half of them are not, nor are those that remain.
    assert_eq!(process.folds().await, 2);
}

/// A query service of which one test alone reads the numbers.
struct OwnProcess {
    reader: Reader,
    ops: Reader,
    _process: Process,
    _place: Place,
}

impl OwnProcess {
    async fn start(blog: &Blog) -> Self {
        let (http, ops) = (address(), address());
        let place = Place::passing("query-service").unwrap();
        let process = service_process(
            "query-service",
            &place.log(),
            &[
                ("INKSTREAM_DATABASE_URL", &blog.settings.database_url),
                ("INKSTREAM_REDIS_URL", &blog.settings.redis_url),
                ("INKSTREAM_REDIS_PREFIX", &blog.settings.prefix),
                ("INKSTREAM_HTTP_ADDRESS", &http),
                ("INKSTREAM_OPS_ADDRESS", &ops),
                ("INKSTREAM_JWT_SECRET", SECRET),
                ("INKSTREAM_LOG_LIMIT_MS", "20000"),
                ("INKSTREAM_REDIS_LIMIT_MS", "10000"),
                ("INKSTREAM_REQUEST_SECONDS", "40"),
                ("INKSTREAM_MEMORY_MS", "60000"),
            ],
        )
        .unwrap();
        eventually("the service is ready", async || {
            let answer = reqwest::get(format!("http://{ops}/health/ready")).await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        let reader = |address: &str| Reader::new(address.parse().unwrap());
        Self { reader: reader(&http), ops: reader(&ops), _process: process, _place: place }
    }

    /// How often it has read the log for pages.
    async fn folds(&self) -> u64 {
        let numbers = self.ops.get("/metrics").await.text;
        let line = numbers.lines().find_map(|line| line.strip_prefix("folds_total "));
        line.unwrap_or("0").parse().unwrap()
    }
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

//! Many who want the same page at once. The numbers of a process are those of all its tests, so this one
//! looks at a process of its own.

use std::time::Duration;

use futures::future::join_all;
use testkit::{Place, eventually, free_port, service_process, shared};

use crate::support::{Blog, Reader, SECRET, database};

#[tokio::test]
async fn a_stampede_on_a_cold_post_reads_the_log_once() {
    let database = database().await;
    let blog = Blog::without_service(database.url(), &shared().redis_url).await;
    let page = format!("/posts/{}", blog.publish("writing").await);
    blog.begin_epochs().await;
    let (http, ops) = (address(), address());
    let place = Place::passing("query-service").unwrap();
    let _process = service_process(
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
            ("INKSTREAM_REQUEST_SECONDS", "20"),
        ],
    )
    .unwrap();
    eventually("the service is ready", async || {
        let answer = reqwest::get(format!("http://{ops}/health/ready")).await;
        answer.is_ok_and(|answer| answer.status() == 200)
    })
    .await;

    // Nobody is answered before all have asked: the log is out of reach until then.
    let mut blocker = database.connect().await;
    let mut block = sqlx::Connection::begin(&mut blocker).await.unwrap();
    sqlx::query("LOCK TABLE events").execute(&mut *block).await.unwrap();
    let reader = Reader::new(http.parse().unwrap());
    let readers = (0..1000).map(|_| reader.get(&page));
    let release = async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        block.rollback().await.unwrap();
    };
    let (answers, ()) = tokio::join!(join_all(readers), release);

    assert!(answers.iter().all(|answer| answer.status == 200));
    let numbers = Reader::new(ops.parse().unwrap()).get("/metrics").await.text;
    assert!(numbers.contains("\nfolds_total 1\n"), "{numbers}");
}

fn address() -> String {
    format!("127.0.0.1:{}", free_port().unwrap())
}

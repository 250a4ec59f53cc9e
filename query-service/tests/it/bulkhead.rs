//! How many may wait for the log.

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::support::{Blog, database};

#[tokio::test]
async fn who_finds_too_many_waiting_is_turned_away_at_once_and_the_others_are_answered() {
    let database = database().await;
    let patient = [
        "--log-reads",
        "1",
        "--log-queue",
        "2",
        "--log-limit-ms",
        "20000",
        "--request-seconds",
        "20",
    ];
    let url = database.url();
    let blog = Blog::start_behind(url, url, &testkit::shared().redis_url, &patient).await;
    let mut pages = vec![];
    for number in 0..10 {
        pages.push(format!("/posts/{}", blog.publish(&format!("post-{number}")).await));
    }
    let mut blocker = database.connect().await;
    let mut block = sqlx::Connection::begin(&mut blocker).await.unwrap();
    sqlx::query("LOCK TABLE events").execute(&mut *block).await.unwrap();

    let reader = blog.reader();
    let mut answers: FuturesUnordered<_> = pages.iter().map(|page| reader.get(page)).collect();
    // Nobody can be answered yet, so these were not let in.
    for _ in 0..7 {
        let answer = answers.next().await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        assert_ne!(answer.header("retry-after"), "");
    }
    block.rollback().await.unwrap();
    for _ in 0..3 {
        assert_eq!(answers.next().await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn readers_with_a_token_share_one_look_for_a_slug() {
    let database = database().await;
    let narrow = ["--log-reads", "1", "--log-queue", "2", "--log-limit-ms", "20000"];
    let options = [&narrow[..], &["--request-seconds", "20"]].concat();
    let url = database.url();
    let blog = Blog::start_behind(url, url, &testkit::shared().redis_url, &options).await;
    blog.publish("writing").await;
    let mut blocker = database.connect().await;
    let mut block = sqlx::Connection::begin(&mut blocker).await.unwrap();
    sqlx::query("LOCK TABLE slugs").execute(&mut *block).await.unwrap();

    let reader = blog.reader().as_author("anne");
    let readers = futures::future::join_all((0..20).map(|_| reader.get("/posts/writing")));
    let release = async {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        block.rollback().await.unwrap();
    };
    let (answers, ()) = tokio::join!(readers, release);
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
}

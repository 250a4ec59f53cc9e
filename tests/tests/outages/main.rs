//! What readers and writers notice of an outage, in figures: a steady load, one server or process taken away
//! for ten seconds, and every answer judged. A program of its own, so that no other test runs beside it.

use std::time::Duration;

use journeys::{Blog, Ground, Judged, Post, Rates, Steady};
use testkit::{Kafka, Postgres, Redis, eventually, own_kafka, own_postgres, own_redis};

const RATES: Rates = Rates { reads: 100, writes: 10 };
const POSTS: usize = 20;
const BEFORE: Duration = Duration::from_secs(2);
const OUTAGE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(3);

/// A blog on servers of its own.
struct Scene {
    blog: Blog,
    postgres: Postgres,
    redis: Redis,
    kafka: Kafka,
    posts: Vec<Post>,
}

#[tokio::test]
async fn what_is_noticed_of_an_outage() {
    let mut scene = Scene::new().await;
    let mut table = vec![];

    let steady = scene.steady().await;
    flush(&scene.redis.url()).await;
    tokio::time::sleep(OUTAGE).await;
    let flushed = scene.judge(steady, "FLUSHALL", &mut table).await;

    let steady = scene.steady().await;
    scene.redis.kill().expect("Redis could not be killed");
    tokio::time::sleep(OUTAGE).await;
    scene.redis.restart().await.expect("Redis did not come back");
    let without_redis = scene.judge(steady, "Redis killed, back empty", &mut table).await;

    let steady = scene.steady().await;
    scene.kafka.stop().await.expect("Kafka did not stop");
    tokio::time::sleep(OUTAGE).await;
    scene.kafka.restart().await.expect("Kafka did not come back");
    let without_kafka = scene.judge(steady, "Kafka stopped", &mut table).await;

    let steady = scene.steady().await;
    scene.postgres.stop().await.expect("Postgres did not stop");
    tokio::time::sleep(OUTAGE).await;
    scene.postgres.restart().await.expect("Postgres did not come back");
    let without_postgres = scene.judge(steady, "Postgres stopped", &mut table).await;

    let steady = scene.steady().await;
    scene.blog.projector.kill();
    tokio::time::sleep(OUTAGE).await;
    scene.blog.projector.start_again().await;
    let without_projector = scene.judge(steady, "projector stopped", &mut table).await;

    print(&table);
    for judged in [&flushed, &without_redis, &without_kafka, &without_postgres, &without_projector]
    {
        let first: Vec<&String> = judged.wrong.iter().take(3).collect();
        assert!(judged.wrong.is_empty(), "{} answers were wrong: {first:#?}", judged.wrong.len());
    }
    for judged in [&flushed, &without_redis] {
        assert!(judged.errors * 100 <= judged.reads, "{judged:?}");
        assert!(judged.errors_with_token * 100 <= judged.reads_with_token, "{judged:?}");
    }
    for judged in [&without_kafka, &without_projector] {
        let failed = (judged.errors, judged.errors_with_token, judged.stale_with_token);
        assert_eq!(failed, (0, 0, 0), "{judged:?}");
        assert_eq!(judged.refused, 0, "commands need neither: {judged:?}");
    }
    assert_eq!(without_postgres.errors, 0, "warm pages need no Postgres: {without_postgres:?}");
}

impl Scene {
    async fn new() -> Self {
        let (postgres, redis, kafka) = tokio::join!(own_postgres(), own_redis(), own_kafka());
        postgres.ensure_database("blog").await.expect("no database");
        let ground = Ground {
            database_url: postgres.url("blog"),
            redis_url: redis.url(),
            kafka: kafka.brokers(),
        };
        let blog = Blog::start_on(ground, &[]).await;
        let anne = blog.sign_up("anne");
        let mut posts = vec![];
        for number in 1..=POSTS {
            posts.push(anne.publish(&format!("Post number {number}")).await);
        }
        Self { blog, postgres, redis, kafka, posts }
    }

    /// Begins the load once all is well, and lets it run for a while.
    async fn steady(&mut self) -> Steady {
        let anne = self.blog.sign_up("anne");
        let mut posts = vec![];
        for post in &self.posts {
            // Each outage begins with posts that are known for certain.
            posts.push(anne.revise(post, serde_json::json!({ "title": titled(post) })).await);
        }
        self.posts = posts;
        let reader = self.blog.reader();
        for post in &self.posts {
            eventually("a post is warm", async || {
                let page = reader.page(&post.id).await;
                page.status == 200 && page.body["version"] == post.version && !page.is_from("log")
            })
            .await;
            assert_eq!(reader.page(post.slug()).await.status, 200);
        }
        let steady = Steady::begin(&anne, &reader, &self.posts, RATES);
        tokio::time::sleep(BEFORE).await;
        steady
    }

    async fn judge(&self, steady: Steady, outage: &'static str, table: &mut Vec<String>) -> Judged {
        tokio::time::sleep(AFTER).await;
        let judged = steady.end().await;
        table.push(format!(
            "{outage:<26} {:>6} {:>6} {:>6} {:>8} ms {:>7} {:>6} {:>6} {:>7} {:>7}",
            judged.reads,
            judged.wrong.len(),
            judged.errors,
            judged.longest.as_millis(),
            judged.reads_with_token,
            judged.errors_with_token,
            judged.stale_with_token,
            judged.writes,
            judged.refused,
        ));
        judged
    }
}

/// The title of a post as its slug says it: the load tells its own editions from it by theirs.
fn titled(post: &Post) -> String {
    let words = post.slug().replace('-', " ");
    words[..1].to_uppercase() + &words[1..]
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn print(table: &[String]) {
    println!(
        "\n{} reads of pages and {} revisions a second, each revision read back with its token; {} s",
        RATES.reads,
        RATES.writes,
        (BEFORE + OUTAGE + AFTER).as_secs()
    );
    println!(
        "{:<26} {:>6} {:>6} {:>6} {:>11} {:>7} {:>6} {:>6} {:>7} {:>7}",
        "",
        "reads",
        "wrong",
        "errors",
        "longest",
        "w.token",
        "errors",
        "stale",
        "writes",
        "refused"
    );
    table.iter().for_each(|line| println!("{line}"));
}

async fn flush(url: &str) {
    let client = redis::Client::open(url).expect("not an address");
    let mut redis = client.get_multiplexed_async_connection().await.expect("no Redis");
    let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.expect("not flushed");
}

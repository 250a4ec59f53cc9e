//! What readers and writers notice of an outage, in figures: a steady load, one server or process taken away
//! for ten seconds, and every answer judged. A program of its own, so that no other test runs beside it.

use std::time::Duration;

use journeys::{Author, Blog, Ground, Judged, Kind, Post, Rates, Steady};
use testkit::{Kafka, Postgres, Redis, eventually, own_kafka, own_postgres, own_redis};
use tokio::task::JoinSet;

const RATES: Rates = Rates { reads: 100, html: 20, cold: 10, lists: 10, writes: 10 };
const POSTS: usize = 20;
/// As many as an outage lasts for, each of which is read once.
const COLD: usize = 200;
const OUTAGES: usize = 5;
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
    cold: Vec<Post>,
}

#[tokio::test]
async fn what_is_noticed_of_an_outage() {
    let mut scene = Scene::new().await;
    let mut table = vec![];

    let steady = scene.steady().await;
    scene.redis.flush().await.expect("not flushed");
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
        for kind in Kind::ALL {
            let tally = judged.of(kind);
            assert!(is_exception(tally.errors, tally.reads), "{}: {tally:?}", kind.name());
        }
        let with_token = judged.of(Kind::WithToken);
        assert!(
            is_exception(with_token.stale, with_token.reads),
            "a page is folded from the log: {with_token:?}"
        );
    }
    for judged in [&without_kafka, &without_projector] {
        for kind in Kind::ALL {
            let tally = judged.of(kind);
            assert!(is_exception(tally.errors, tally.reads), "{}: {tally:?}", kind.name());
        }
        let with_token = judged.of(Kind::WithToken);
        assert!(is_exception(with_token.stale, with_token.reads), "{with_token:?}");
        let (refused, writes) = (judged.refused, judged.writes);
        assert!(is_exception(refused, writes), "commands need neither: {refused} of {writes}");
    }
    for kind in [Kind::Page, Kind::Html, Kind::Cold, Kind::List] {
        let tally = without_postgres.of(kind);
        assert!(
            is_exception(tally.errors, tally.reads),
            "what Redis has needs no Postgres: {}: {tally:?}",
            kind.name()
        );
    }
}

/// Whether it happened to so few that it may be a hiccup of a busy machine, of three of the fifteen seconds: an outage
/// strikes two thirds.
fn is_exception(few: usize, of: usize) -> bool {
    few * 4 <= of
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
        let blog = Blog::start_impatient(ground).await;
        let anne = blog.sign_up("anne");
        // First, so that the others are the latest.
        let cold = publish_many(&anne, OUTAGES * COLD).await;
        let mut posts = vec![];
        for number in 1..=POSTS {
            posts.push(anne.publish(&format!("Post number {number}")).await);
        }
        Self { blog, postgres, redis, kafka, posts, cold }
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
        eventually("all views are filled", async || {
            let list = reader.get("/posts").await;
            list.status == 200 && !list.is_stale()
        })
        .await;
        let cold = self.cold.split_off(self.cold.len() - COLD);
        let steady = Steady::begin(&anne, &reader, &self.posts, cold, RATES);
        tokio::time::sleep(BEFORE).await;
        steady
    }

    async fn judge(&self, steady: Steady, outage: &'static str, table: &mut Vec<String>) -> Judged {
        tokio::time::sleep(AFTER).await;
        let judged = steady.end().await;
        table.push(format!(
            "{outage}: {} wrong answers; {} of {} revisions refused",
            judged.wrong.len(),
            judged.refused,
            judged.writes
        ));
        for kind in Kind::ALL {
            let (name, tally) = (kind.name(), judged.of(kind));
            table.push(format!(
                "  {name:<24} {:>6} {:>6} {:>6} {:>8} ms",
                tally.reads,
                tally.errors,
                tally.stale,
                tally.longest.as_millis()
            ));
        }
        judged
    }
}

/// Several at a time.
async fn publish_many(author: &Author, count: usize) -> Vec<Post> {
    let mut under_way = JoinSet::new();
    let mut posts = vec![];
    for number in 1..=count {
        if under_way.len() == 8 {
            posts.extend(under_way.join_next().await.transpose().expect("not published"));
        }
        let author = author.clone();
        under_way
            .spawn(async move { author.publish_patiently(&format!("Cold post {number}")).await });
    }
    posts.extend(under_way.join_all().await);
    posts
}

/// The title of a post as its slug says it: the load tells its own editions from it by theirs.
fn titled(post: &Post) -> String {
    let words = post.slug().replace('-', " ");
    words[..1].to_uppercase() + &words[1..]
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn print(table: &[String]) {
    println!(
        "\n{} reads of pages, {} of HTML pages, {} of pages that nobody has read before, {} of the list of the latest \
         {POSTS}, and {} revisions a second, each revision read back with its token; {} s",
        RATES.reads,
        RATES.html,
        RATES.cold,
        RATES.lists,
        RATES.writes,
        (BEFORE + OUTAGE + AFTER).as_secs()
    );
    println!("{:<26} {:>6} {:>6} {:>6} {:>11}", "", "reads", "errors", "stale", "longest");
    table.iter().for_each(|line| println!("{line}"));
}

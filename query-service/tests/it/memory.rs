//! What is answered from memory, for how long, and what ends it.

use std::time::Duration;

use futures::future::join_all;
use redis::aio::MultiplexedConnection;
use reqwest::header::HeaderMap;
use serde_json::json;
use testkit::{eventually, own_redis, shared};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::support::{Answer, Blog, Reader, WITHOUT_MEMORY, database, from_memory, new_id};

/// So long that within a test only an announcement ends anything.
const LONG: [&str; 2] = ["--memory-ms", "60000"];

#[tokio::test]
async fn a_page_that_was_read_is_sent_from_memory() {
    let blog = Blog::start().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let read = blog.reader().get("/posts/writing").await;
    assert_eq!(read.header("freshness"), "position=2, source=redis, age=0");
    for address in ["/posts/writing", &format!("/posts/{id}")] {
        let kept = eventually_kept(&blog.reader(), address).await;
        assert_eq!(kept.header("freshness"), "position=2, source=memory, age=0");
        assert_eq!(kept.text, read.text);
    }
}

#[tokio::test]
async fn an_answer_from_memory_has_the_headers_of_any_other() {
    let origins = ["--cors-origins", "https://blog.example"];
    for options in [vec![], origins.to_vec()] {
        let (with, without) = (
            Blog::start_with(&options).await,
            Blog::start_with(&[options, WITHOUT_MEMORY.to_vec()].concat()).await,
        );
        for blog in [&with, &without] {
            blog.publish("writing").await;
            blog.project().await;
        }
        for known in [Some("\"x\""), None, Some("*")] {
            for is_head in [false, true] {
                let ask = async |blog: &Blog| {
                    let method = if is_head { "HEAD" } else { "GET" };
                    let reader = blog.reader();
                    // The entity tag is of the bytes, which hold the post's id.
                    let own = reader.get("/posts/writing").await.header("etag").to_owned();
                    let header = ("if-none-match", known.unwrap_or(&own));
                    reader.ask_with(method.parse().unwrap(), "/posts/writing", header).await
                };
                let read = ask(&without).await;
                assert_eq!(read.source(), "redis");
                let kept = from_memory(async || ask(&with).await).await;
                assert_eq!(kept.status, read.status);
                assert_eq!(comparable(&kept), comparable(&read));
                assert_eq!(kept.text.is_empty(), read.text.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_read_what_is_kept() {
    let blog = Blog::start_with(&["--cors-origins", "https://blog.example"]).await;
    blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
    let answer = blog.reader().get_with("/posts/writing", "origin", "https://blog.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://blog.example");
}

#[tokio::test]
async fn the_id_of_a_request_is_in_an_answer_from_memory_too() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
    let answer = blog.reader().get_with("/posts/writing", "x-request-id", "mine").await;
    assert_eq!((answer.status, answer.header("x-request-id")), (200, "mine"));
    let missing = blog.reader().get("/posts/nothing").await;
    assert_eq!(missing.header("x-request-id").len(), 36);
}

#[tokio::test]
async fn a_page_without_exactly_one_host_is_not_answered_from_memory_either() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
    for (hosts, status) in [("host: b\r\n", 200), ("", 400), ("host: b\r\nhost: b\r\n", 400)] {
        let mut client = TcpStream::connect(blog.address()).await.unwrap();
        let head = format!("GET /posts/writing HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn a_change_ends_what_is_kept_at_once() {
    let blog = Blog::start_with(&LONG).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;

    blog.revise_title(id, "On other things").await;
    blog.project().await;
    eventually("the new title is shown", async || {
        blog.reader().get("/posts/writing").await.json()["title"] == "On other things"
    })
    .await;
}

#[tokio::test]
async fn a_change_leaves_what_is_kept_of_other_pages() {
    let blog = Blog::start_with(&LONG).await;
    let id = blog.publish("writing").await;
    blog.publish("reading").await;
    blog.project().await;
    // Whoever listens may have begun anew meanwhile, which ends all; but not each time.
    eventually("another page is left", async || {
        for address in ["/posts/writing", "/posts/reading"] {
            eventually_kept(&blog.reader(), address).await;
        }
        let title = Uuid::new_v4().to_string();
        blog.revise_title(id, &title).await;
        blog.project().await;
        eventually("the new title is shown", async || {
            blog.reader().get("/posts/writing").await.json()["title"] == title
        })
        .await;
        blog.reader().get("/posts/reading").await.source() == "memory"
    })
    .await;
}

#[tokio::test]
async fn a_post_that_is_moved_unpublished_or_deleted_is_so_at_once() {
    let blog = Blog::start_with(&LONG).await;
    let id = blog.publish("early").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/early").await;
    let becomes = async |address: &str, status: u16| {
        eventually("the answer changes", async || {
            blog.reader().get(address).await.status == status
        })
        .await;
    };

    blog.move_to(id, "late").await;
    blog.project().await;
    becomes("/posts/early", 301).await;
    let moved = eventually_kept(&blog.reader(), "/posts/early").await;
    assert_eq!(moved.header("location"), "/posts/late");
    eventually_kept(&blog.reader(), "/posts/late").await;

    blog.unpublish(id).await;
    blog.project().await;
    becomes("/posts/late", 404).await;
    assert_eq!(blog.reader().get(&format!("/posts/{id}")).await.status, 404);

    blog.record(id, json!({"published": {"slug": "late"}})).await;
    blog.project().await;
    becomes("/posts/late", 200).await;
    blog.delete(id).await;
    blog.project().await;
    becomes("/posts/late", 410).await;
    assert_eq!(blog.reader().get("/posts/early").await.status, 410);
}

#[tokio::test]
async fn a_change_that_is_not_announced_is_seen_after_the_lifetime() {
    let blog = Blog::start().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
    blog.revise_title(id, "On other things").await;
    // Tells nobody.
    blog.begin_epochs().await;
    eventually("the new title is shown", async || {
        blog.reader().get("/posts/writing").await.json()["title"] == "On other things"
    })
    .await;
}

#[tokio::test]
async fn all_that_is_kept_ends_when_announcements_may_have_been_missed() {
    let database = database().await;
    let redis = own_redis().await;
    let url = database.url();
    let blog = Blog::start_behind(url, url, &redis.url(), &LONG).await;
    blog.publish("writing").await;
    blog.project().await;
    let mut admin = connect(&redis.url()).await;
    eventually_kept(&blog.reader(), "/posts/writing").await;

    let subscribers = async |admin: &mut MultiplexedConnection| -> String {
        redis::cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub").query_async(admin).await.unwrap()
    };
    let mut before = String::new();
    eventually("the one who listens is cut off", async || {
        before = subscribers(&mut admin).await;
        let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").to_owned();
        kill.query_async::<u32>(&mut admin).await.unwrap() == 1
    })
    .await;
    eventually("somebody listens again", async || {
        let now = subscribers(&mut admin).await;
        !now.is_empty() && now != before
    })
    .await;
    eventually("the page is read again", async || {
        blog.reader().get("/posts/writing").await.source() != "memory"
    })
    .await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
}

#[tokio::test]
async fn all_that_is_kept_ends_when_readers_are_switched_to_other_views_and_back() {
    let mut blog = Blog::start_with(&LONG).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    blog.switch_to(1).await;
    let before = eventually_kept(&blog.reader(), "/posts/writing").await;

    blog.revise_title(id, "On other things").await;
    let old = blog.views.clone();
    blog.views = old.of_generation(2);
    blog.project().await;
    // So that it is the switch that ends it.
    let kept = eventually_kept(&blog.reader(), "/posts/writing").await;
    assert_eq!(kept.text, before.text);
    blog.switch_to(2).await;
    let is_read = async |what: &str| {
        eventually("the other views are read", async || {
            blog.reader().get("/posts/writing").await.text.contains(what)
        })
        .await;
        assert!(eventually_kept(&blog.reader(), "/posts/writing").await.text.contains(what));
    };
    is_read("On other things").await;

    // Those of before have not gone on here, so that the two can be told apart.
    blog.switch_to(1).await;
    eventually("the way back is taken", async || {
        blog.reader().get("/posts/writing").await.text == before.text
    })
    .await;
}

#[tokio::test]
async fn while_announcements_stall_nothing_is_kept_for_long() {
    let database = database().await;
    let (redis, redis_url) = shared().redis_proxy();
    let url = database.url();
    let options = [&LONG[..], &["--redis-limit-ms", "250"]].concat();
    let blog = Blog::start_behind(url, url, &redis_url, &options).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
    redis.stall();
    blog.revise_title(id, "On other things").await;
    eventually("the page is read from the log", async || {
        blog.reader().get("/posts/writing").await.json()["title"] == "On other things"
    })
    .await;
}

#[tokio::test]
async fn that_nothing_is_there_ends_with_the_publication() {
    let blog = Blog::start_with(&LONG).await;
    blog.project().await;
    let draft = blog.draft("writing").await;
    blog.project().await;
    for address in ["/posts/writing", &format!("/posts/{draft}"), "/posts/nothing"] {
        assert_eq!(blog.reader().get(address).await.code(), "not_found");
    }
    blog.record(draft, json!({"published": {"slug": "writing"}})).await;
    let bob = blog.reader().as_author("bob");
    assert_eq!(bob.get("/posts/writing").await.status, 200, "a bearer was told what was kept");
    let anne = blog.reader().get_with("/posts/writing", "cookie", "consistency=x").await;
    assert_eq!(anne.status, 200, "a writer was told what was kept");
    blog.publish("nothing").await;
    let new = blog.reader().get_with("/posts/nothing", "cookie", "a=b; consistency=x").await;
    assert_eq!(new.status, 200, "a writer was told what was kept");
    blog.project().await;
    eventually("the posts are there for all", async || {
        let answers = [
            blog.reader().get("/posts/writing").await,
            blog.reader().get(&format!("/posts/{draft}")).await,
            blog.reader().get("/posts/nothing").await,
        ];
        answers.iter().all(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn who_does_not_say_what_they_have_seen_is_answered_from_a_server_and_alone() {
    let blog = Blog::start_with(&LONG).await;
    blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
    let reader = blog.reader();
    let answers = [
        reader.as_author("bob").get("/posts/writing").await,
        reader.get_with("/posts/writing", "cookie", "a=b; consistency=x").await,
    ];
    for answer in answers {
        assert_eq!((answer.status, answer.source()), (200, "redis"));
        assert_eq!(answer.header("cache-control"), "private, no-store");
    }
    from_memory(async || reader.get_with("/posts/writing", "cookie", "a=b; c=d").await).await;
}

#[tokio::test]
async fn a_draft_that_its_author_reads_is_shown_to_nobody_else() {
    let blog = Blog::start_with(&LONG).await;
    let page = format!("/posts/{}", blog.draft("writing").await);
    blog.project().await;
    let anne = blog.reader().as_author("anne");
    for _ in 0..3 {
        assert_eq!(anne.get(&page).await.source(), "redis");
        assert_eq!(blog.reader().get(&page).await.code(), "not_found");
    }
}

#[tokio::test]
async fn many_who_want_a_page_that_is_not_kept_read_redis_once() {
    let database = database().await;
    let redis = own_redis().await;
    let (proxy, through_proxy) = {
        let proxy = testkit::Proxy::start(&redis.address());
        let url = format!("redis://{}/?protocol=resp3", proxy.address());
        (proxy, url)
    };
    let url = database.url();
    // Whoever comes too late to share the read finds in memory what it has left.
    let blog = Blog::start_behind(url, url, &through_proxy, &LONG).await;
    let page = format!("/posts/{}", blog.publish("writing").await);
    blog.project().await;
    let mut admin = connect(&redis.url()).await;
    redis::cmd("CONFIG").arg("RESETSTAT").query_async::<()>(&mut admin).await.unwrap();

    proxy.stall();
    let reader = blog.reader();
    let readers = join_all((0..50).map(|_| reader.get(&page)));
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.restore();
    };
    let (answers, ()) = tokio::join!(readers, release);
    assert!(answers.iter().all(|answer| answer.status == 200));
    let numbers: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut admin).await.unwrap();
    // Only rows are asked for with it.
    assert!(numbers.contains("cmdstat_hget:calls=1,"), "{numbers}");
}

#[tokio::test]
async fn a_page_that_is_set_aside_is_kept_as_stale() {
    let blog = Blog::start_with(&LONG).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
    let bad = blog.record(id, json!({"translated": {}})).await;
    blog.set_aside(id, bad).await;
    eventually("the page is stale", async || {
        let answer = blog.reader().get("/posts/writing").await;
        answer.source() == "memory" && answer.is_stale()
    })
    .await;
}

#[tokio::test]
async fn the_numbers_tell_what_was_answered_from_memory() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    eventually_kept(&blog.reader(), "/posts/writing").await;
    let _none = blog.reader().get(&format!("/posts/{}", new_id())).await;
    eventually("memory is measured", async || {
        let numbers = blog.ops().get("/metrics").await.text;
        for metric in query_service::METRICS {
            let help = format!("# HELP {} {}", metric.name, metric.help);
            let counted = numbers.contains(&format!("\n{}", metric.name));
            assert!(!counted || numbers.contains(&help), "{} is not explained", metric.name);
        }
        numbers.contains("reads_total{view=\"page\",source=\"memory\"}")
            && numbers.contains("\nmemory_bytes ")
    })
    .await;
}

async fn eventually_kept(reader: &Reader, address: &str) -> Answer {
    from_memory(async || reader.get(address).await).await
}

/// Returns the headers without those that differ between two stores: `Freshness`, `Date`, the id of a request, and
/// the entity tag, which is of the bytes and so of the post's id.
fn comparable(answer: &Answer) -> HeaderMap {
    let mut headers = answer.headers.clone();
    headers.remove("freshness").unwrap();
    headers.remove("date").unwrap();
    headers.remove("x-request-id");
    headers.remove("etag").unwrap();
    headers
}

async fn connect(url: &str) -> MultiplexedConnection {
    testkit::patient_connection(url).await.unwrap()
}

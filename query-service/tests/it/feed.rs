//! The feed and the sitemap.

use std::time::Duration;

use atom_syndication::Feed;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use serde_json::json;
use testkit::{eventually, own_redis, shared};

use crate::lists::slugs_of;
use crate::support::{Answer, Blog, WITHOUT_MEMORY, database};

#[tokio::test]
async fn the_feed_tells_of_the_latest_posts() {
    let blog = Blog::start().await;
    let content =
        json!({"content": "Write *every* day & night.", "summary": "Short", "tags": ["The Craft"]});
    let id = blog.write("anne", "first", content).await;
    blog.record(id, json!({"published": {"slug": "first"}})).await;
    for number in 0..20 {
        blog.publish(&format!("post-{number}")).await;
    }
    blog.draft("secret").await;
    blog.project().await;
    let last = blog.publish("last").await;
    blog.project().await;
    blog.evict(last).await;

    let answer = blog.reader().get("/feed.atom").await;
    assert_eq!(answer.header("content-type"), "application/atom+xml; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "public, max-age=0, must-revalidate");
    assert_eq!(answer.source(), "redis");
    let feed = feed(&answer);
    assert_eq!(feed.entries.len(), 20);
    assert_eq!(feed.entries[0].title.as_str(), "On last");
    assert_eq!(feed.entries[1].title.as_str(), "On post-19");
    assert!(!answer.text.contains("secret"));
    assert_eq!(feed.updated, feed.entries[0].updated);
    // Redis has forgotten the first of them, so the log has helped.
    for entry in &feed.entries {
        let content = entry.content.as_ref().expect("an entry without its text");
        assert_eq!(content.value.as_deref(), Some("<p>Begin.</p>\n"));
    }
}

#[tokio::test]
async fn an_entry_has_all_that_its_post_has() {
    let blog = Blog::start().await;
    let content =
        json!({"content": "Write *every* day & night.", "summary": "Short", "tags": ["The Craft"]});
    let id = blog.write("anne", "first", content).await;
    blog.record(id, json!({"published": {"slug": "first"}})).await;
    blog.project().await;

    let entry = feed(&blog.reader().get("/feed.atom").await).entries.remove(0);
    assert_eq!(entry.id, format!("urn:uuid:{id}"));
    assert_eq!(entry.links[0].href, "http://127.0.0.1:8081/posts/first");
    assert_eq!(entry.authors[0].name, "anne");
    let category = &entry.categories[0];
    assert_eq!((&*category.term, category.label.as_deref()), ("the-craft", Some("The Craft")));
    assert_eq!(entry.summary.unwrap().as_str(), "Short");
    assert_eq!(entry.published, Some(entry.updated));
    let content = entry.content.unwrap();
    assert_eq!(content.content_type.as_deref(), Some("html"));
    assert_eq!(content.value.as_deref(), Some("<p>Write <em>every</em> day &amp; night.</p>\n"));
    assert_eq!(content.base.as_deref(), Some("http://127.0.0.1:8081/posts/first"));
}

#[tokio::test]
async fn who_has_the_feed_is_not_sent_it_again() {
    let blog = Blog::start().await;
    blog.project().await;
    assert_eq!(feed(&blog.reader().get("/feed.atom").await).entries.len(), 0);
    blog.publish("writing").await;
    blog.project().await;
    let etag = blog.reader().get("/feed.atom").await.header("etag").to_owned();
    assert_eq!(blog.reader().get_unless("/feed.atom", &etag).await.status, 304);
    blog.publish("reading").await;
    blog.project().await;
    assert_eq!(blog.reader().get_unless("/feed.atom", &etag).await.status, 200);
}

#[tokio::test]
async fn what_xml_forbids_is_left_out_and_spoils_nothing() {
    let blog = Blog::start().await;
    // Its first and last ones, those between what is allowed, and, behind them, neighbours that are allowed.
    let forbidden = "\u{1}\u{8}\u{b}\u{c}\u{e}\u{1b}\u{1f}\u{fffe}\u{ffff}";
    let text = format!("a{forbidden}\t\u{7f}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}z");
    let id = crate::support::new_id();
    let content = json!({"title": text, "content": text, "summary": text, "tags": [text]});
    let author = json!({"id": "anne", "name": text});
    blog.record(id, json!({"drafted": {"author": author, "content": content}})).await;
    blog.record(id, json!({"published": {"slug": format!("a{forbidden}z")}})).await;
    blog.project().await;

    let feed = blog.reader().get("/feed.atom").await;
    let sitemap = blog.reader().get("/sitemap.xml").await;
    for answer in [&feed, &sitemap] {
        assert_eq!(answer.status, 200);
        expect_allowed(&answer.text);
    }
    let kept = "a\t\u{7f}\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}z";
    assert_eq!(feed.text.matches(kept).count(), 5, "{}", feed.text);
    assert!(sitemap.text.contains("/posts/az</loc>"), "{}", sitemap.text);
}

/// Every character, as it stands or by its number, is one that XML 1.0 allows (section 2.2).
#[track_caller]
fn expect_allowed(xml: &str) {
    let is_allowed = |code: u32| matches!(code, 0x9 | 0xA | 0xD | 0x20..=0xD7FF | 0xE000..=0xFFFD | 0x10000..=0x10FFFF);
    for char in xml.chars() {
        assert!(is_allowed(char.into()), "{char:?} in {xml:?}");
    }
    for reference in xml.split("&#").skip(1) {
        let number = reference.split(';').next().unwrap();
        let code = match number.strip_prefix('x') {
            Some(number) => u32::from_str_radix(number, 16),
            None => number.parse(),
        };
        assert!(is_allowed(code.unwrap()), "&#{number}; in {xml:?}");
    }
}

#[tokio::test]
async fn a_feed_looks_for_no_more_texts_than_it_has_room_for() {
    let database = database().await;
    let (postgres, database_url) = shared().postgres_proxy(database.name());
    let blog = Blog::start_behind(database.url(), &database_url, &shared().redis_url, &[]).await;
    let mut early = vec![];
    for number in 0..3 {
        early.push(blog.publish(&format!("early-{number}")).await);
    }
    for number in 0..6 {
        let content = json!({"content": "word ".repeat(50_000)});
        let slug = format!("late-{number}");
        let id = blog.write("anne", &slug, content).await;
        blog.record(id, json!({"published": {"slug": slug}})).await;
    }
    blog.project().await;
    for id in early {
        blog.forget_text(id).await;
    }
    postgres.cut();

    let entries = feed(&blog.reader().get("/feed.atom").await).entries;
    assert_eq!(entries.len(), 9);
    let has_text = entries.iter().map(|entry| entry.content.is_some());
    assert_eq!(Vec::from_iter(has_text), [[true; 4].as_slice(), &[false; 5]].concat());
}

#[tokio::test]
async fn the_sitemap_has_every_published_post() {
    let blog = Blog::start().await;
    for number in 0..7 {
        blog.publish(&format!("post-{number}")).await;
    }
    blog.draft("secret").await;
    blog.project().await;
    let answer = blog.reader().get("/sitemap.xml").await;
    assert_eq!(answer.header("content-type"), "application/xml; charset=utf-8");
    let start = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n";
    assert!(
        answer.text.starts_with(start) && answer.text.ends_with("</urlset>\n"),
        "{}",
        answer.text
    );
    for number in 0..7 {
        let address =
            format!("<url><loc>http://127.0.0.1:8081/posts/post-{number}</loc><lastmod>2");
        assert!(answer.text.contains(&address), "{}", answer.text);
    }
    assert_eq!(answer.text.matches("<url>").count(), 7);
}

#[tokio::test]
async fn a_sitemap_of_which_a_part_is_stale_is_stale_and_kept_by_nobody() {
    let blog = Blog::start().await;
    let first = blog.publish("first").await;
    // The first post stands in the second part.
    let publish = async |number| blog.publish(&format!("post-{number}")).await;
    stream::iter((0..500).map(publish)).buffer_unordered(8).collect::<Vec<_>>().await;
    blog.project().await;
    blog.set_aside(first, domain::Position(1 << 40)).await;
    let stale = blog.reader().get("/sitemap.xml").await;
    assert_eq!((stale.status, stale.text.matches("<url>").count()), (200, 501));
    assert_eq!((stale.is_stale(), stale.header("cache-control")), (true, "no-store"));

    blog.begin_epochs().await;
    blog.end_filling(true).await;
    let whole = blog.reader().get("/sitemap.xml").await;
    assert_eq!((whole.status, whole.text.matches("<url>").count()), (200, 501));
    assert_eq!((whole.is_stale(), whole.header("cache-control")), (false, "public, max-age=600"));
    blog.delete(first).await;
    blog.project().await;
    // For a while it is good enough for everybody.
    let again = blog.reader().get("/sitemap.xml").await;
    assert_eq!((again.source(), again.is_stale()), ("memory", false));
    assert_eq!(again.text, whole.text);
}

#[tokio::test]
async fn a_sitemap_puts_nothing_into_redis() {
    let blog = Blog::start_without_memory().await;
    let mut ids = vec![];
    for number in 0..5 {
        ids.push(blog.publish(&format!("post-{number}")).await);
    }
    let read = blog.publish_as("anne", "read", &["craft"]).await;
    ids.push(read);
    blog.project().await;
    for id in &ids {
        blog.evict(*id).await;
    }
    let sitemap = blog.reader().get("/sitemap.xml").await;
    assert_eq!((sitemap.status, sitemap.text.matches("<url>").count()), (200, 6));
    // Somebody reads one of them afterwards. Once that is there, all that was offered before is.
    eventually("what is read is stored", async || {
        assert_eq!(slugs_of(&blog.reader().get("/posts?tag=craft").await), ["read"]);
        blog.views.row(read).await.unwrap().row.is_some()
    })
    .await;
    for found in blog.views.rows(&ids[..5]).await.unwrap() {
        assert_eq!(found.row, None, "nobody has read it");
    }
}

#[tokio::test]
async fn who_asks_for_the_feed_or_the_sitemap_at_the_same_time_shares_one_read() {
    let database = database().await;
    let redis = own_redis().await;
    let url = database.url();
    let blog = Blog::start_behind(url, url, &redis.url(), &WITHOUT_MEMORY).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    for address in ["/feed.atom", "/sitemap.xml"] {
        blog.evict(id).await;
        let before = ranges_read(&redis.url()).await;
        // Nobody is answered before all have asked: the log is out of reach until then.
        let mut blocker = database.connect().await;
        let mut block = sqlx::Connection::begin(&mut blocker).await.unwrap();
        sqlx::query("LOCK TABLE events").execute(&mut *block).await.unwrap();
        let reader = blog.reader();
        let readers = (0..50).map(|_| reader.get(address));
        let release = async {
            // In turns, each of which all others have, too: no hiccup of the machine can take more than one.
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            block.rollback().await.unwrap();
        };
        let (answers, ()) = tokio::join!(join_all(readers), release);
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let ranges = ranges_read(&redis.url()).await - before;
        assert_eq!(ranges, 4, "one for each partition: {address}");
        eventually("the row is stored again", async || {
            blog.reader().get("/posts").await;
            blog.views.row(id).await.unwrap().row.is_some()
        })
        .await;
    }
}

/// How many parts of lists Redis has been asked for.
async fn ranges_read(url: &str) -> u64 {
    let mut redis = testkit::patient_connection(url).await.unwrap();
    let info: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut redis).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_zrevrangebylex:calls="));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test]
async fn where_no_list_can_be_had_there_is_neither() {
    let blog = Blog::start().await;
    for address in ["/feed.atom", "/sitemap.xml"] {
        let answer = blog.reader().get(address).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    }
}

#[track_caller]
fn feed(answer: &Answer) -> Feed {
    assert_eq!(answer.status, 200);
    answer.text.parse().unwrap()
}

//! The feed and the sitemap.

use std::time::Duration;

use atom_syndication::Feed;
use domain::Position;
use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use read_model::Watermark;
use serde_json::json;
use testkit::{eventually, eventually_some, own_redis, shared};
use uuid::Uuid;

use crate::lists::slugs_of;
use crate::support::{Answer, Blog, WITHOUT_MEMORY, database};
use crate::tokens;

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
async fn a_text_that_cannot_be_had_or_is_too_long_costs_no_other_entry_its_text() {
    let database = database().await;
    let (postgres, database_url) = shared().postgres_proxy(database.name());
    let blog = Blog::start_behind(database.url(), &database_url, &shared().redis_url, &[]).await;
    let missing = blog.publish("missing").await;
    for number in 0..3 {
        blog.publish(&format!("short-{number}")).await;
    }
    let long = json!({"content": "<".repeat(262_144)});
    let id = blog.write("anne", "long", long).await;
    blog.record(id, json!({"published": {"slug": "long"}})).await;
    blog.project().await;
    blog.forget_text(missing).await;
    let has_texts = |answer: &Answer| {
        let entries = feed(answer).entries;
        let has_text = entries.iter().map(|entry| entry.content.is_some());
        (Vec::from_iter(has_text), entries)
    };

    let answer = blog.reader().get("/feed.atom").await;
    let (texts, entries) = has_texts(&answer);
    assert_eq!((texts, answer.is_stale()), (vec![false, true, true, true, true], false));
    let excerpt = entries[0].summary.as_ref().unwrap().as_str();
    assert_eq!(excerpt, format!("{}…", "<".repeat(280)));

    postgres.cut();
    let answer = blog.reader().get("/feed.atom").await;
    let (texts, _) = has_texts(&answer);
    assert_eq!((texts, answer.is_stale()), (vec![false, true, true, true, false], true));
}

#[tokio::test]
async fn the_longest_texts_that_fit_together_are_in_the_feed() {
    let blog = Blog::start().await;
    blog.publish("short").await;
    for number in 0..6 {
        let content = json!({"content": "word ".repeat(50_000)});
        let slug = format!("long-{number}");
        let id = blog.write("anne", &slug, content).await;
        blog.record(id, json!({"published": {"slug": slug}})).await;
    }
    blog.project().await;
    let entries = feed(&blog.reader().get("/feed.atom").await).entries;
    let has_text = entries.iter().map(|entry| entry.content.is_some());
    assert_eq!(Vec::from_iter(has_text), [true, true, true, true, false, false, true]);
}

#[tokio::test]
async fn an_entry_is_updated_only_with_its_text() {
    let blog = Blog::start().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let updated = async || {
        blog.project().await;
        let entry = feed(&blog.reader().get("/feed.atom").await).entries.remove(0);
        (entry.updated, entry.published.unwrap())
    };
    let (first, published) = updated().await;
    assert_eq!(first, published);
    blog.move_to(id, "reading").await;
    blog.record(id, json!({"revised": {"changes": {"tags": ["craft"]}}})).await;
    blog.unpublish(id).await;
    blog.record(id, json!({"published": {"slug": "reading"}})).await;
    assert_eq!(updated().await, (first, published));
    blog.revise_title(id, "On reading").await;
    let (second, _) = updated().await;
    assert!(second > first);
}

#[tokio::test]
async fn while_a_partition_is_filled_there_is_the_last_whole_feed_and_sitemap_or_none() {
    let blog = Blog::start().await;
    let first = blog.publish("post-0").await;
    for number in 1..4 {
        blog.publish_elsewhere(first, &format!("post-{number}")).await;
    }
    let entries = |answer: &Answer| {
        answer.text.matches("<entry>").count() + answer.text.matches("<url>").count()
    };
    blog.begin_epochs().await;
    for address in ["/feed.atom", "/sitemap.xml"] {
        let answer = blog.reader().get(address).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{address}");
        assert_ne!(answer.header("retry-after"), "");
    }
    blog.end_filling(true).await;
    for address in ["/feed.atom", "/sitemap.xml"] {
        let answer = blog.reader().get(address).await;
        assert_eq!((answer.status, entries(&answer), answer.is_stale()), (200, 4, false));
    }
    blog.begin_epoch_of(first, &Watermark::new_epoch(Uuid::new_v4())).await;
    // A reader with a token does not take what was built for others a moment ago.
    let ahead = blog.token(1, first, Position(1 << 40));
    for address in ["/feed.atom", "/sitemap.xml"] {
        let answer = tokens::get(&blog, address, &ahead).await;
        assert_eq!((answer.status, entries(&answer), answer.is_stale()), (200, 4, true));
        assert_eq!(answer.source(), "memory", "{address}");
    }
    let feed = blog.reader().get("/feed.atom").await;
    assert_eq!((feed.status, entries(&feed), feed.is_stale()), (200, 4, true));
}

#[tokio::test]
async fn while_redis_is_away_there_are_the_last_feed_and_sitemap() {
    let database = database().await;
    let mut redis = own_redis().await;
    let url = database.url();
    let blog = Blog::start_behind(url, url, &redis.url(), &[]).await;
    let id = blog.publish("writing").await;
    let withdrawn = blog.publish("withdrawn").await;
    blog.project().await;
    for address in ["/feed.atom", "/sitemap.xml"] {
        let answer = blog.reader().get(address).await;
        assert_eq!((answer.status, answer.is_stale()), (200, false), "{address}");
        assert!(answer.text.contains("/posts/withdrawn"), "{address}");
    }
    blog.unpublish(withdrawn).await;
    blog.project().await;
    let page = blog.reader().get("/posts/withdrawn").await;
    assert_eq!(page.status, 404, "this process knows of it now");
    redis.stop().await.unwrap();
    // One that includes what this reader has seen cannot be built.
    let ahead = blog.token(1, id, Position(1 << 40));
    for address in ["/feed.atom", "/sitemap.xml"] {
        let answer = tokens::get(&blog, address, &ahead).await;
        assert_eq!((answer.status, answer.is_stale()), (200, true), "{address}");
        assert_eq!(answer.source(), "memory", "{address}");
        assert!(answer.text.contains("/posts/writing"), "{address}");
        assert!(!answer.text.contains("/posts/withdrawn"), "{address}");
        assert_eq!(answer.header("cache-control"), "private, no-store");
    }
    let feed = blog.reader().get("/feed.atom").await;
    assert_eq!((feed.status, feed.is_stale(), feed.source()), (200, true, "memory"));
}

#[tokio::test]
async fn a_sitemap_includes_what_its_reader_has_seen() {
    let blog = Blog::start_with(&["--token-wait-ms", "10000"]).await;
    let id = blog.publish("writing").await;
    blog.publish("reading").await;
    blog.project().await;
    let before = blog.reader().get("/sitemap.xml").await;
    assert_eq!(before.text.matches("<url>").count(), 2);
    let withdrawn = blog.record(id, json!({"unpublished": {}})).await;
    let token = blog.token(1, id, withdrawn);
    let project = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        blog.project().await;
    };
    let (after, ()) = tokio::join!(tokens::get(&blog, "/sitemap.xml", &token), project);
    assert_eq!((after.status, after.is_stale()), (200, false));
    assert_eq!(after.text.matches("<url>").count(), 1, "{}", after.text);
    assert_eq!(after.header("cache-control"), "private, no-store");
    assert!(after.varies_by("consistency-token"));
    // What was built for that reader is good enough for all others as well.
    for answer in
        [blog.reader().get("/sitemap.xml").await, tokens::get(&blog, "/sitemap.xml", &token).await]
    {
        assert_eq!((answer.source(), answer.is_stale()), ("memory", false));
        assert_eq!(answer.text, after.text);
    }
    let refused = blog.reader().get_with("/sitemap.xml", "consistency-token", "x").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_request"));
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
    blog.set_aside(first, Position(1 << 40)).await;
    let stale = blog.reader().get("/sitemap.xml").await;
    assert_eq!((stale.status, stale.text.matches("<url>").count()), (200, 501));
    assert_eq!((stale.is_stale(), stale.header("cache-control")), (true, "no-store"));

    blog.begin_epochs().await;
    blog.end_filling(true).await;
    // The watermark is below what it was, until the event store says that it was wrong then.
    let whole = eventually_some("it is whole", async || {
        Some(blog.reader().get("/sitemap.xml").await).filter(|sitemap| !sitemap.is_stale())
    })
    .await;
    assert_eq!((whole.status, whole.text.matches("<url>").count()), (200, 501));
    assert_eq!((whole.is_stale(), whole.header("cache-control")), (false, "public, max-age=600"));
    blog.publish("later").await;
    blog.project().await;
    // For a while it is good enough for everybody.
    let again = blog.reader().get("/sitemap.xml").await;
    assert_eq!((again.source(), again.is_stale()), ("memory", false));
    assert_eq!(again.text, whole.text);
    // Unless it shows a post that was withdrawn.
    blog.delete(first).await;
    blog.project().await;
    eventually("the deleted post is gone", async || {
        !blog.reader().get("/sitemap.xml").await.text.contains("/posts/first<")
    })
    .await;
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

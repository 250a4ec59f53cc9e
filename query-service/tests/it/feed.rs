//! The feed and the sitemap.

use atom_syndication::Feed;
use serde_json::json;

use crate::support::{Answer, Blog};

#[tokio::test]
async fn the_feed_tells_of_the_latest_posts() {
    let blog = Blog::start().await;
    let content =
        json!({"content": "Write *every* day & night.", "summary": "Short", "tags": ["craft"]});
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
        json!({"content": "Write *every* day & night.", "summary": "Short", "tags": ["craft"]});
    let id = blog.write("anne", "first", content).await;
    blog.record(id, json!({"published": {"slug": "first"}})).await;
    blog.project().await;

    let entry = feed(&blog.reader().get("/feed.atom").await).entries.remove(0);
    assert_eq!(entry.id, format!("urn:uuid:{id}"));
    assert_eq!(entry.links[0].href, "http://127.0.0.1:8081/posts/first");
    assert_eq!(entry.authors[0].name, "anne");
    assert_eq!(entry.categories[0].term, "craft");
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

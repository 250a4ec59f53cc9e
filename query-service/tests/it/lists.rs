//! What lists hold, and when they hold nothing back.

use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Answer, Blog};

#[tokio::test]
async fn a_list_merges_all_partitions_latest_first() {
    let blog = Blog::start().await;
    let mut slugs = vec![];
    for number in 0..12 {
        let slug = format!("post-{number}");
        blog.publish(&slug).await;
        slugs.insert(0, slug);
    }
    blog.draft("unfinished").await;
    blog.project().await;

    let answer = blog.reader().get("/posts").await;
    assert_eq!(answer.status, 200);
    assert_eq!(slugs_of(&answer), slugs);
    assert_eq!(answer.json()["next"], Value::Null);
    assert_eq!((answer.source(), answer.is_stale()), ("redis", false));
    let lowest = blog.views.watermarks().await.unwrap();
    let lowest = lowest.into_iter().map(|mark| mark.unwrap().point.position).min().unwrap();
    assert!(answer.header("freshness").starts_with(&format!("position={lowest}, ")));

    let card = &answer.json()["items"][0];
    let mut page = blog.reader().get("/posts/post-11").await.json();
    page.as_object_mut().unwrap().remove("content");
    assert_eq!(card, &page, "a card is not its page without the content");
}

#[tokio::test]
async fn lists_are_by_tag_and_by_author_too() {
    let blog = Blog::start().await;
    blog.publish_as("anne", "a", &["event-sourcing"]).await;
    blog.publish_as("auth0|bob", "b", &["rust", "event-sourcing"]).await;
    blog.publish_as("anne", "c", &["rust"]).await;
    blog.project().await;
    let read = async |query: &str| slugs_of(&blog.reader().get(&format!("/posts?{query}")).await);
    assert_eq!(read("tag=Event%20Sourcing").await, ["b", "a"]);
    assert_eq!(read("tag=rust").await, ["c", "b"]);
    assert_eq!(read("author=anne").await, ["c", "a"]);
    assert_eq!(read("author=auth0%7Cbob").await, ["b"]);
    assert_eq!(read("author=nobody").await, <[&str; 0]>::default());
}

#[tokio::test]
async fn tags_that_differ_in_a_symbol_have_lists_of_their_own() {
    let blog = Blog::start().await;
    for (slug, tag) in [("a", "C"), ("b", "C++"), ("c", "C#"), ("d", ".NET"), ("e", "c++")] {
        blog.publish_as("anne", slug, &[tag]).await;
    }
    blog.project().await;
    let get = async |query: &str| blog.reader().get(&format!("/posts?{query}")).await;
    for (slug, spelling, posts) in [
        ("c", "C", &["a"][..]),
        ("c-plus-plus", "C%2B%2B", &["e", "b"]),
        ("c-sharp", "C%23", &["c"]),
        ("dot-net", ".net", &["d"]),
    ] {
        for tag in [slug, spelling] {
            assert_eq!(slugs_of(&get(&format!("tag={tag}")).await), posts, "{tag}");
        }
    }
    let list = get("tag=C%2B%2B&limit=1").await;
    assert_eq!(list.json()["items"][0]["tags"], json!(["c++"]));
    assert!(list.header("link").starts_with("</posts?limit=1&tag=c-plus-plus&"), "{list:?}");
    assert_eq!(blog.reader().get("/posts/b").await.json()["tags"], json!(["C++"]));
}

#[tokio::test]
async fn a_list_that_has_not_changed_is_not_sent_again() {
    let blog = Blog::start().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let etag = blog.reader().get("/posts").await.header("etag").to_owned();
    assert_eq!(blog.reader().get_unless("/posts", &etag).await.status, 304);
    blog.revise_title(id, "On reading").await;
    blog.project().await;
    assert_eq!(blog.reader().get_unless("/posts", &etag).await.status, 200);
}

#[tokio::test]
async fn a_card_that_redis_lacks_is_folded_from_the_log_and_stored() {
    let blog = Blog::start().await;
    let first = blog.publish("first").await;
    let second = blog.publish("second").await;
    blog.publish("third").await;
    blog.project().await;
    blog.evict(first).await;
    blog.evict(second).await;
    let answer = blog.reader().get("/posts").await;
    assert_eq!(slugs_of(&answer), ["third", "second", "first"]);
    eventually("the rows are stored", async || {
        // Should Redis not have taken them, the next reader offers them again.
        blog.reader().get("/posts").await;
        let rows = blog.views.rows(&[first, second]).await.unwrap();
        rows.iter().all(|found| found.row.is_some())
    })
    .await;
}

#[tokio::test]
async fn a_post_that_went_away_meanwhile_is_left_out() {
    let blog = Blog::start().await;
    let id = blog.publish("first").await;
    blog.publish("second").await;
    blog.project().await;
    blog.unpublish(id).await;
    blog.evict(id).await;
    assert_eq!(slugs_of(&blog.reader().get("/posts").await), ["second"]);
}

#[tokio::test]
async fn a_post_that_lost_a_tag_meanwhile_is_left_out_of_its_list() {
    let blog = Blog::start().await;
    let id = blog.publish_as("anne", "first", &["craft", "art"]).await;
    blog.publish_as("anne", "second", &["craft"]).await;
    blog.project().await;
    blog.record(id, json!({"revised": {"changes": {"tags": ["art"]}}})).await;
    // The log knows of it, and the lists do not yet.
    blog.evict(id).await;
    let read = async |tag: &str| {
        let list = blog.reader().get(&format!("/posts?tag={tag}")).await;
        (slugs_of(&list), list.is_stale())
    };
    assert_eq!(read("craft").await, (vec!["second".to_owned()], false));
    assert_eq!(read("art").await, (vec!["first".to_owned()], false));
}

#[tokio::test]
async fn a_list_says_that_it_is_stale_while_a_partition_is_not_filled() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.begin_epochs().await;
    let answer = blog.reader().get("/posts").await;
    assert_eq!((answer.status, answer.is_stale()), (200, true));
    blog.end_filling(true).await;
    let answer = blog.reader().get("/posts").await;
    assert_eq!((slugs_of(&answer), answer.is_stale()), (vec!["writing".to_owned()], false));
}

#[tokio::test]
async fn without_a_watermark_there_is_no_list_rather_than_an_empty_one() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    let answer = blog.reader().get("/posts").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    assert_ne!(answer.header("retry-after"), "");
}

#[tokio::test]
async fn what_cannot_be_read_of_a_question_is_refused() {
    let blog = Blog::start().await;
    blog.project().await;
    for query in ["limt=5", "limit=x", "limit=1&limit=2", "tag=a&author=b", "cursor=", "cursor=x"] {
        let answer = blog.reader().get(&format!("/posts?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{query}");
    }
    for (query, field) in [("limit=0", "limit"), ("limit=101", "limit"), ("tag=-", "tag")] {
        let answer = blog.reader().get(&format!("/posts?{query}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "validation_failed"), "{query}");
        assert_eq!(answer.json()["errors"][0]["field"], json!(field));
    }
}

pub(crate) fn slugs_of(answer: &Answer) -> Vec<String> {
    let list = answer.json();
    let items = list["items"].as_array().unwrap_or_else(|| panic!("not a list: {answer:?}"));
    items.iter().map(|card| card["slug"].as_str().unwrap().to_owned()).collect()
}

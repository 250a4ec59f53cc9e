//! Lists of many posts, and the one numbering behind them.

use journeys::{Blog, Load};
use testkit::eventually;

#[tokio::test]
async fn forty_posts_page_through_in_order_and_none_twice() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");
    let mut titles = vec![];
    for number in 1..=40 {
        titles.insert(0, anne.publish(&format!("Number {number}")).await.title);
    }
    let reader = blog.reader();
    eventually("all are in the list", async || {
        reader.list("", 100).await.is_some_and(|list| list.cards.len() == 40)
    })
    .await;

    for (limit, pages) in [(1, 40), (7, 6), (20, 2), (40, 1), (100, 1)] {
        let list = reader.list("", limit).await.unwrap();
        assert_eq!(list.titles(), titles, "by {limit}");
        assert_eq!(list.pages, pages, "by {limit}");
    }
    assert_eq!(reader.list("&author=anne", 11).await.unwrap().titles(), titles);
}

#[tokio::test]
async fn posts_that_come_and_go_meanwhile_do_not_disturb_who_pages_through() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");
    let mut posts = vec![];
    for number in 1..=9 {
        posts.insert(0, anne.publish(&format!("Number {number}")).await);
    }
    let reader = blog.reader();
    let has =
        async |count| reader.list("", 100).await.is_some_and(|list| list.cards.len() == count);
    eventually("all are in the list", async || has(9).await).await;
    let first = reader.get("/posts?limit=3").await;

    // The last one that was shown, one that was not, and one on top.
    anne.delete(&posts[2]).await;
    anne.delete(&posts[5]).await;
    eventually("two are gone", async || has(7).await).await;
    anne.publish("Number 10").await;
    eventually("one has come", async || has(8).await).await;

    let next = first.body["next"].as_str().unwrap();
    let rest = reader.get(&format!("/posts?limit=100&cursor={next}")).await;
    let items = rest.body["items"].as_array().unwrap();
    let titles: Vec<&str> = items.iter().map(|card| card["title"].as_str().unwrap()).collect();
    assert_eq!(titles, ["Number 6", "Number 5", "Number 3", "Number 2", "Number 1"]);
}

#[tokio::test]
async fn answers_name_the_positions_of_the_log_which_has_no_hole() {
    let blog = Blog::start().await;
    let authors = blog.sign_up_all(["anne", "bob", "carl", "dora"]);

    let outcome = Load::begin(&authors, 60).end().await;

    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    let log = blog.log().await;
    // Drafted and published, each of them.
    assert_eq!(log.events.len(), 120);
    blog.has_kept_its_word(&outcome).await;
}

/// Everywhere else the log would step in after two seconds and hide it, were Kafka never to bring anything.
#[tokio::test]
async fn kafka_alone_brings_posts_into_the_lists() {
    let patience = [("INKSTREAM_PATIENCE_MS", "3600000")];
    let blog = Blog::start_on(journeys::Ground::shared().await, &patience).await;
    let authors = blog.sign_up_all(["anne", "bob"]);

    let outcome = Load::begin(&authors, 20).end().await;

    blog.has_kept_its_word(&outcome).await;
}

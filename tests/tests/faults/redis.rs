//! Redis may lose anything at any time: pages are answered all the same, and lists come back whole.

use journeys::{Blog, Ground, Load, Onlooker};
use testkit::own_redis;

#[tokio::test]
async fn flushing_redis_costs_readers_nothing() {
    let redis = own_redis().await;
    let ground = Ground { redis_url: redis.url(), ..Ground::shared().await };
    let blog = Blog::start_on(ground, &[]).await;
    let authors = blog.sign_up_all(["anne", "bob", "carl", "dora"]);
    let mut load = Load::begin(&authors, 200);
    let published = load.published();
    let onlookers =
        [Onlooker::of(&blog.reader(), &published), Onlooker::of(authors[0].reader(), &published)];

    for progress in [50, 100, 150] {
        load.reached(progress).await;
        redis.flush().await.expect("not flushed");
    }
    let outcome = load.end().await;
    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    blog.agrees_with(&blog.log().await).await;
    // Once more when nobody writes: no event comes along to show what is missing.
    redis.flush().await.expect("not flushed");
    for onlooker in &onlookers {
        onlooker.reads_on(200).await;
    }

    blog.has_kept_its_word(&outcome).await;
    for onlooker in onlookers {
        onlooker.saw_nothing_wrong().await;
    }
}

#[tokio::test]
async fn while_redis_is_gone_pages_come_from_the_log() {
    let mut redis = own_redis().await;
    let ground = Ground { redis_url: redis.url(), ..Ground::shared().await };
    let blog = Blog::start_on(ground, &[]).await;
    let authors = blog.sign_up_all(["anne", "bob"]);
    let (reader, anne) = (blog.reader(), &authors[0]);
    let mut load = Load::begin(&authors, 60);
    let published = load.published();
    let onlooker = Onlooker::of(&reader, &published);

    load.reached(20).await;
    redis.kill().expect("Redis could not be killed");
    let outcome = load.end().await;
    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    let meanwhile = anne.publish("Without Redis").await;
    for post in [&outcome.acknowledged[0], &meanwhile] {
        assert!(reader.can_read(post).await, "{post:?}");
        assert!(!reader.page(&post.id).await.is_from("redis"));
    }
    assert!(reader.list("", 20).await.is_none(), "a list without Redis");
    onlooker.reads_on(100).await;

    redis.restart().await.expect("Redis did not come back");
    blog.has_kept_its_word(&outcome.and(meanwhile)).await;
    onlooker.reads_on(100).await;
    onlooker.saw_nothing_wrong().await;
}

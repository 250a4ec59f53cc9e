//! Redis is believed as far as it can be known to be right, and given what it lacks.

use std::collections::BTreeMap;

use domain::post::PostEvent;
use domain::{PostId, Recorded};
use read_model::{FoundRow, PostPage, fold_page};
use redis::AsyncCommands as _;
use serde_json::json;
use testkit::eventually;

use crate::lists::slugs_of;
use crate::support::{Blog, new_id};

#[tokio::test]
async fn a_page_that_redis_lacks_is_folded_from_the_log_and_stored() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.begin_epochs().await;
    blog.end_filling(false).await;

    let first = blog.reader().get("/posts/writing").await;
    assert_eq!((first.status, first.source()), (200, "log"));
    eventually("the page is stored", async || {
        blog.reader().get("/posts/writing").await.source() == "redis"
    })
    .await;
    let stored = blog.views.row(id).await.unwrap().row;
    assert_eq!(stored.unwrap().position, blog.row(id).await.position);
    eventually("the slug is remembered", async || {
        let remembered = blog.views.claim_of(1, &"writing".parse().unwrap()).await.unwrap();
        remembered.is_some_and(|remembered| remembered.post_id == id)
    })
    .await;
}

#[tokio::test]
async fn an_empty_redis_is_no_reason_for_a_404() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    for _ in 0..3 {
        assert_eq!(blog.reader().get("/posts/writing").await.source(), "log");
    }
    // A watermark is the projector's to set: without one, nothing vouches for a row.
    assert_eq!(blog.views.row(id).await.unwrap(), FoundRow::default());
}

#[tokio::test]
async fn a_row_that_has_not_seen_the_publication_is_no_reason_for_a_404() {
    let blog = Blog::start_without_memory().await;
    let id = blog.draft("writing").await;
    blog.project().await;
    assert_eq!(blog.reader().get("/posts/writing").await.status, 404);

    blog.record(id, json!({"published": {"slug": "writing"}})).await;
    let answer = blog.reader().get("/posts/writing").await;
    assert_eq!((answer.status, answer.source()), (200, "log"));
}

#[tokio::test]
async fn a_row_of_an_epoch_that_is_over_is_not_served() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    blog.revise_title(id, "On reading").await;
    blog.begin_epochs().await;

    let answer = blog.reader().get("/posts/writing").await;
    assert_eq!((answer.source(), &answer.json()["title"]), ("log", &json!("On reading")));
}

#[tokio::test]
async fn views_of_an_earlier_life_of_the_store_are_not_served() {
    let blog = Blog::start_without_memory().await;
    blog.publish("writing").await;
    blog.project().await;
    assert_eq!(blog.reader().get("/posts/writing").await.source(), "redis");

    sqlx::query("UPDATE store SET incarnation = 2").execute(&blog.pool).await.unwrap();
    eventually("the page is folded from the log", async || {
        blog.reader().get("/posts/writing").await.source() == "log"
            && blog.reader().get("/posts").await.status == 503
    })
    .await;
}

#[tokio::test]
async fn an_older_fold_never_takes_the_place_of_a_newer_row() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    // The views have come further than the log can tell, as when a fold was slow and an event quick.
    blog.run_ahead(id).await;
    blog.evict(id).await;

    for _ in 0..5 {
        assert_eq!(blog.reader().get("/posts/writing").await.source(), "log");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(blog.views.row(id).await.unwrap().row, None, "an older row was stored");

    blog.revise_title(id, "On reading").await;
    eventually("the page is stored as it is now", async || {
        let answer = blog.reader().get("/posts/writing").await;
        answer.source() == "redis" && answer.json()["title"] == "On reading"
    })
    .await;
}

#[tokio::test]
async fn a_post_with_an_event_from_a_later_version_is_shown_as_it_was_before() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.publish("reading").await;
    let both = || vec!["reading".to_owned(), "writing".to_owned()];
    blog.project().await;
    blog.record(id, json!({"translated": {}})).await;
    // What was folded before it is served as it was.
    assert_eq!(blog.reader().get("/posts/writing").await.status, 200);

    blog.evict(id).await;
    blog.record(id, json!({"unpublished": {}})).await;
    for _ in 0..2 {
        let answer = blog.reader().get("/posts/writing").await;
        assert_eq!((answer.status, answer.source(), answer.is_stale()), (200, "log", true));
        assert_eq!(answer.json()["version"], 2);
        let list = blog.reader().get("/posts").await;
        assert_eq!((slugs_of(&list), list.is_stale()), (both(), true));
    }
    // Nobody here knows what it would show.
    assert_eq!(blog.views.row(id).await.unwrap().row, None);
}

#[tokio::test]
async fn an_event_that_was_discarded_is_left_out() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    let bad = blog.record(id, json!({"dreamt": {}})).await;
    let later = blog.revise_title(id, "Later").await;
    assert!(blog.reader().get("/posts/writing").await.is_stale());
    // As an operator does it with the projector.
    sqlx::query(
        "INSERT INTO quarantine (position, partition, aggregate_type, aggregate_id, sequence, event_type,
                                 event_version, reason, state, discarded_at)
         SELECT position, partition, aggregate_type, aggregate_id, sequence, event_type, event_version,
                'unknown', 'discarded', now()
         FROM events WHERE position = $1",
    )
    .bind(bad.to_i64())
    .execute(&blog.pool)
    .await
    .unwrap();

    let page = blog.reader().get("/posts/writing").await;
    assert_eq!((page.status, page.source(), page.is_stale()), (200, "log", false));
    assert_eq!(page.json()["title"], "Later");
    assert!(page.header("freshness").starts_with(&format!("position={later},")));
}

#[tokio::test]
async fn a_post_with_nothing_to_show_before_such_an_event_is_not_said_to_be_absent() {
    let blog = Blog::start_without_memory().await;
    let draft = blog.draft("writing").await;
    let unknown = new_id();
    for id in [draft, unknown] {
        blog.record(id, json!({"translated": {}})).await;
        let answer = blog.reader().get(&format!("/posts/{id}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        assert_eq!(answer.header("retry-after"), "60");
    }
}

#[tokio::test]
async fn a_fold_that_panics_makes_its_page_alone_unavailable() {
    fn panics_at_a_title(
        page: Option<PostPage>,
        event: &Recorded<PostEvent>,
        id: PostId,
    ) -> Option<PostPage> {
        if let PostEvent::Drafted { content, .. } = &event.payload
            && content.title.as_str() == "On panics"
        {
            panic!("a fault of the fold");
        }
        fold_page(page, event, id)
    }
    let blog = Blog::start_folding_by(panics_at_a_title).await;
    let panics = blog.publish("panics").await;
    blog.publish("writing").await;
    blog.project().await;
    for _ in 0..2 {
        blog.evict_if_there(panics).await;
        for address in [format!("/posts/{panics}"), "/posts/panics".to_owned()] {
            let answer = blog.reader().get(&address).await;
            assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
        }
        assert_eq!(blog.reader().get("/posts/writing").await.status, 200);
        let list = blog.reader().get("/posts").await;
        assert_eq!((slugs_of(&list), list.is_stale()), (vec!["writing".to_owned()], true));
    }
}

#[tokio::test]
async fn a_page_that_is_set_aside_is_stale_and_so_is_a_list_that_shows_it() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    assert!(!blog.reader().get("/posts").await.is_stale());
    let bad = blog.record(id, json!({"translated": {}})).await;
    blog.set_aside(id, bad).await;
    let answer = blog.reader().get("/posts/writing").await;
    assert_eq!((answer.status, answer.source(), answer.is_stale()), (200, "redis", true));
    let list = blog.reader().get("/posts").await;
    assert_eq!((list.status, list.is_stale()), (200, true));
}

#[tokio::test]
async fn rows_that_another_version_wrote_in_its_own_shape_are_neither_read_nor_replaced() {
    let blog = Blog::start_without_memory().await;
    let ours = blog.publish("ours").await;
    let theirs = blog.publish_elsewhere(ours, "theirs").await;
    blog.project().await;
    for epoch in ["v1-an-older-program", "v999-a-newer-program"] {
        // As while processes of two versions stand side by side: theirs has begun one partition anew and filled it,
        // and its rows belong to that epoch, only that ours could make nothing of them.
        blog.begin_epoch_of(theirs, epoch).await;
        blog.end_filling(true).await;
        let (mut redis, key) = blog.redis_of(theirs).await;
        for (field, value) in [("card", "{\"headline\":\"x\"}"), ("content", "<x>")] {
            redis::cmd("HSET")
                .arg(&key)
                .arg(field)
                .arg(value)
                .exec_async(&mut redis)
                .await
                .unwrap();
        }
        let row: BTreeMap<String, String> = redis.hgetall(&key).await.unwrap();
        assert_eq!(row["epoch"], epoch);

        for _ in 0..3 {
            let page = blog.reader().get("/posts/theirs").await;
            assert_eq!((page.status, page.source()), (200, "log"), "{epoch}");
            assert_eq!(
                (&page.json()["title"], &page.json()["content"]),
                (&json!("On theirs"), &json!("Begin."))
            );
            assert!(blog.reader().browse("/posts/theirs").await.text.contains("<p>Begin.</p>"));
            assert_eq!(blog.reader().get("/posts/ours").await.source(), "redis", "{epoch}");
            // Without that partition a list would lack posts.
            assert_eq!(blog.reader().get("/posts").await.status, 503, "{epoch}");
        }
        let after: BTreeMap<String, String> = redis.hgetall(&key).await.unwrap();
        assert_eq!(after, row, "what the other one reads was replaced");
    }
}

//! Who shows what they have seen is told no less.

use std::time::{Duration, Instant};

use domain::{Partition, Partitions, Position};
use http_api::{ConsistencyToken, ConsistencyTokens, ShownToken};
use testkit::{eventually, own_postgres, shared};

use crate::lists::slugs_of;
use crate::support::{Answer, Blog, WITHOUT_MEMORY, create_store, from_memory};

/// So long that within a test only an announcement ends anything.
const LONG_MEMORY: [&str; 2] = ["--memory-ms", "60000"];
const LONG_WAIT: [&str; 2] = ["--token-wait-ms", "10000"];
const NO_WAIT: [&str; 2] = ["--token-wait-ms", "0"];

#[tokio::test]
async fn a_page_waits_for_the_views_and_is_then_read_from_them() {
    let blog = Blog::start_with(&[WITHOUT_MEMORY, LONG_WAIT].concat()).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let position = blog.revise_title(id, "On reading").await;
    let token = blog.token(1, id, position);
    let project = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        blog.project().await;
    };
    let (answer, ()) = tokio::join!(get(&blog, "/posts/writing", &token), project);
    assert_eq!((answer.status, answer.source(), answer.is_stale()), (200, "redis", false));
    assert_eq!(answer.json()["title"], "On reading");
    assert_eq!(answer.header("cache-control"), "private, no-store");
}

#[tokio::test]
async fn a_page_that_the_views_do_not_reach_in_time_is_folded_from_the_log() {
    for options in [&[][..], &NO_WAIT] {
        let blog = Blog::start_with(options).await;
        let id = blog.publish("writing").await;
        blog.project().await;
        assert_eq!(blog.reader().get("/posts/writing").await.status, 200);
        let position = blog.revise_title(id, "On reading").await;
        let token = blog.token(1, id, position);
        for address in ["/posts/writing", "/post/writing", &format!("/posts/{id}")] {
            let answer = get(&blog, address, &token).await;
            assert_eq!((answer.source(), answer.is_stale()), ("log", false), "{address}");
            assert_eq!(answer.json()["title"], "On reading");
        }
        let cookie = format!("a=b; consistency={token}");
        let answer = blog.reader().get_with("/posts/writing", "cookie", &cookie).await;
        assert_eq!((answer.source(), &answer.json()["title"]), ("log", &"On reading".into()));
        assert_ne!(blog.reader().get("/posts/writing").await.source(), "log", "it waited");
    }
}

#[tokio::test]
async fn memory_answers_a_token_if_it_has_seen_as_much() {
    let blog = Blog::start_with(&[LONG_MEMORY, NO_WAIT].concat()).await;
    let id = blog.publish("writing").await;
    let position = blog.revise_title(id, "On reading").await;
    blog.project().await;
    let of_no_partition = blog.seal(&ConsistencyToken { incarnation: 1, positions: [].into() });
    for token in [blog.token(1, id, position), of_no_partition] {
        let kept = from_memory(async || {
            // Whoever has a token leaves nothing there for others.
            blog.reader().get("/posts/writing").await;
            get(&blog, "/posts/writing", &token).await
        })
        .await;
        assert!(!kept.is_stale());
        assert_eq!(kept.header("cache-control"), "private, no-store");
    }

    let later = blog.revise_title(id, "On other things").await;
    let answer = get(&blog, "/posts/writing", &blog.token(1, id, later)).await;
    assert_eq!((answer.source(), &answer.json()["title"]), ("log", &"On other things".into()));
}

#[tokio::test]
async fn memory_tells_nobody_with_a_token_that_nothing_is_there() {
    let blog = Blog::start_with(&LONG_MEMORY).await;
    blog.project().await;
    assert_eq!(blog.reader().get("/posts/writing").await.status, 404);
    let id = blog.publish("writing").await;
    let of_no_partition = blog.seal(&ConsistencyToken { incarnation: 1, positions: [].into() });
    assert_eq!(get(&blog, "/posts/writing", &of_no_partition).await.status, 200);
    assert_eq!(get(&blog, &format!("/posts/{id}"), &of_no_partition).await.status, 200);
}

#[tokio::test]
async fn a_token_of_an_unknown_key_or_incarnation_costs_nothing_and_is_stale() {
    let blog = Blog::start_with(&[WITHOUT_MEMORY, LONG_WAIT].concat()).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let far = Position(1 << 40);
    let forged = ConsistencyTokens::new(1, [0; 32], Partitions::new(4).unwrap());
    let forged = forged.seal(&ConsistencyToken {
        incarnation: 1,
        positions: (0..4).map(|number| (Partition(number), far)).collect(),
    });
    for token in [blog.token(0, id, far), blog.token(2, id, far), forged] {
        for address in
            ["/posts/writing", "/post/writing", &format!("/posts/{id}"), "/posts", "/feed.atom"]
        {
            let begun = Instant::now();
            let answer = get(&blog, address, &token).await;
            assert_eq!((answer.status, answer.source(), answer.is_stale()), (200, "redis", true));
            assert_eq!(answer.header("cache-control"), "private, no-store");
            assert!(begun.elapsed() < Duration::from_secs(10), "{address}: it waited");
        }
        let cookie = format!("consistency={token}");
        let answer = blog.reader().get_with("/posts/writing", "cookie", &cookie).await;
        assert_eq!((answer.status, answer.source(), answer.is_stale()), (200, "redis", true));
        let answer = get(&blog, "/posts/nothing", &token).await;
        assert_eq!((answer.status, answer.is_stale()), (404, true));
        let anne = blog.reader().as_author("anne");
        assert!(anne.get_with("/me/posts", "consistency-token", &token).await.is_stale());
    }
}

#[tokio::test]
async fn the_key_that_a_new_incarnation_brings_replaces_the_old_one() {
    let blog = Blog::start_with(&NO_WAIT).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let old = blog.token(1, id, Position(2));
    assert!(!get(&blog, "/posts/writing", &old).await.is_stale());
    sqlx::query("UPDATE store SET token_key = DEFAULT").execute(&blog.pool).await.unwrap();
    eventually("the new key is known", async || {
        get(&blog, "/posts/writing", &old).await.is_stale()
    })
    .await;
    let store = event_log::open(&blog.pool).await.unwrap();
    let tokens = ConsistencyTokens::new(1, store.token_key.0, store.partitions);
    let new = tokens.issue(blog.views.partition_of(id), Position(2), ShownToken::Nothing);
    assert!(!get(&blog, "/posts/writing", &tokens.seal(&new)).await.is_stale());
}

#[tokio::test]
async fn two_tokens_and_a_long_one_are_refused() {
    let blog = Blog::start().await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let token = blog.token(1, id, Position(2));
    for address in ["/posts/writing", "/posts", "/feed.atom"] {
        let name = "consistency-token";
        let twice = blog.reader().get_with_all(address, &[(name, &token), (name, &token)]).await;
        assert_eq!((twice.status, twice.code().as_str()), (400, "invalid_request"), "{address}");
        let long = blog.reader().get_with(address, name, &"A".repeat(5_000)).await;
        assert_eq!((long.status, long.code().as_str()), (400, "invalid_request"), "{address}");
    }
}

#[tokio::test]
async fn a_cookie_of_a_longer_name_is_not_ours() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    for cookie in ["consistency2=x", "consistency_banner=seen; a=b", "a=consistency=x"] {
        for address in ["/posts/writing", "/posts", "/feed.atom"] {
            let answer = blog.reader().get_with(address, "cookie", cookie).await;
            let shared = "public, max-age=0, must-revalidate";
            assert_eq!((answer.status, answer.header("cache-control")), (200, shared), "{cookie}");
        }
    }
    let reader = blog.reader();
    from_memory(async || reader.get_with("/posts/writing", "cookie", "consistency2=x").await).await;
}

#[tokio::test]
async fn a_token_that_nobody_was_given_gets_a_page_that_is_stale() {
    let blog = Blog::start_with(&NO_WAIT).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    let answer = get(&blog, "/posts/writing", &blog.token(1, id, Position(1 << 40))).await;
    assert_eq!((answer.status, answer.source(), answer.is_stale()), (200, "log", true));
}

#[tokio::test]
async fn a_token_that_is_garbage_is_refused_in_the_header_and_passed_over_in_a_cookie() {
    let blog = Blog::start().await;
    blog.publish("writing").await;
    blog.project().await;
    for address in ["/posts/writing", "/post/writing", "/posts", "/feed.atom"] {
        let answer = blog.reader().get_with(address, "consistency-token", "x").await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{address}");
        let answer = blog.reader().get_with(address, "cookie", "consistency=x").await;
        assert_eq!((answer.status, answer.is_stale()), (200, false), "{address}");
        assert_eq!(answer.header("cache-control"), "private, no-store");
    }
    let anne = blog.reader().as_author("anne");
    assert_eq!(anne.get_with("/me/posts", "consistency-token", "x").await.status, 400);
}

#[tokio::test]
async fn a_list_waits_for_all_partitions_and_says_if_one_is_still_behind() {
    let blog = Blog::start_with(&LONG_WAIT).await;
    let first = blog.publish("first").await;
    blog.project().await;
    let second = blog.publish("second").await;
    let head = Position(4);
    let token = blog.token(1, second, head);
    let project = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        blog.project().await;
    };
    let (list, ()) = tokio::join!(get(&blog, "/posts", &token), project);
    assert_eq!((slugs_of(&list), list.is_stale()), (both(), false));

    let impatient = Blog::start_with(&NO_WAIT).await;
    impatient.publish("first").await;
    impatient.project().await;
    let token = impatient.token(1, first, Position(1 << 40));
    for token in [token, impatient.token(0, first, Position(1))] {
        let list = get(&impatient, "/posts", &token).await;
        assert_eq!((slugs_of(&list), list.is_stale()), (vec!["first".to_owned()], true));
        let anne = impatient.reader().as_author("anne");
        let own = anne.get_with("/me/posts", "consistency-token", &token).await;
        assert_eq!((own.status, own.is_stale()), (200, true));
    }
}

#[tokio::test]
async fn a_feed_waits_like_a_list_and_says_if_it_lacks_something() {
    let blog = Blog::start_with(&LONG_WAIT).await;
    blog.publish("first").await;
    blog.project().await;
    let id = blog.publish("second").await;
    let token = blog.token(1, id, Position(4));
    let project = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        blog.project().await;
    };
    let (feed, ()) = tokio::join!(get(&blog, "/feed.atom", &token), project);
    assert_eq!((feed.status, feed.is_stale()), (200, false));
    assert!(feed.text.contains("<title>On second</title>"), "{}", feed.text);
    assert_eq!(feed.header("cache-control"), "private, no-store");

    let impatient = Blog::start_with(&NO_WAIT).await;
    let id = impatient.publish("first").await;
    impatient.project().await;
    let feed = get(&impatient, "/feed.atom", &impatient.token(1, id, Position(1 << 40))).await;
    assert_eq!((feed.status, feed.is_stale()), (200, true));
    assert_eq!(feed.header("cache-control"), "private, no-store");
    let shared = impatient.reader().get("/feed.atom").await;
    assert_eq!(shared.header("cache-control"), "public, max-age=0, must-revalidate");
    for header in ["consistency-token", "cookie", "authorization"] {
        assert!(shared.varies_by(header), "{header}");
    }
}

#[tokio::test]
async fn a_token_is_kept_without_redis_and_admits_what_it_lacks_without_postgres() {
    let mut postgres = own_postgres().await;
    postgres.ensure_database("blog").await.unwrap();
    let url = postgres.url("blog");
    create_store(url.clone()).await.unwrap();
    let (redis, redis_url) = shared().redis_proxy();
    let blog = Blog::start_behind(&url, &url, &redis_url, &[]).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    assert_eq!(blog.reader().get("/posts/writing").await.status, 200);
    let position = blog.revise_title(id, "On reading").await;
    let token = blog.token(1, id, position);

    redis.cut();
    let answer = get(&blog, "/posts/writing", &token).await;
    assert_eq!((answer.source(), &answer.json()["title"]), ("log", &"On reading".into()));
    redis.restore();
    eventually("Redis is asked again", async || {
        blog.reader().as_author("bob").get("/posts/writing").await.source() == "redis"
    })
    .await;
    postgres.stop().await.unwrap();
    let answer = get(&blog, "/posts/writing", &token).await;
    assert_eq!((answer.status, answer.source(), answer.is_stale()), (200, "redis", true));
    redis.cut();
    eventually("the page is shown as it was", async || {
        let answer = get(&blog, "/posts/writing", &token).await;
        (answer.status, answer.source(), answer.is_stale()) == (200, "memory", true)
    })
    .await;
}

#[tokio::test]
async fn refusals_and_redirects_tell_how_fresh_they_are() {
    let blog = Blog::start_with(&WITHOUT_MEMORY).await;
    let (moved, deleted) = (blog.publish("early").await, blog.publish("waiting").await);
    let draft = blog.draft("secret").await;
    blog.move_to(moved, "late").await;
    blog.delete(deleted).await;
    blog.project().await;
    for (address, status) in [
        ("/posts/early", 301),
        ("/posts/waiting", 410),
        (&format!("/posts/{draft}"), 404),
        (&format!("/posts/{}", crate::support::new_id()), 404),
    ] {
        let answer = blog.reader().get(address).await;
        assert_eq!(answer.status, status, "{address}");
        assert!(answer.header("freshness").starts_with("position="), "{answer:?}");
    }
}

fn both() -> Vec<String> {
    vec!["second".to_owned(), "first".to_owned()]
}

pub(crate) async fn get(blog: &Blog, address: &str, token: &str) -> Answer {
    blog.reader().get_with(address, "consistency-token", token).await
}

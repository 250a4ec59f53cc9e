//! What readers get while a server is away.

use std::time::{Duration, Instant};

use testkit::{eventually, own_postgres, own_redis, shared};

use crate::lists::slugs_of;
use crate::support::{Blog, WITHOUT_MEMORY, create_store, database};

#[tokio::test]
async fn pages_come_from_the_log_while_redis_is_down() {
    let database = database().await;
    let mut redis = own_redis().await;
    let blog =
        Blog::start_behind(database.url(), database.url(), &redis.url(), &WITHOUT_MEMORY).await;
    blog.publish("writing").await;
    blog.project().await;
    assert_eq!(blog.reader().get("/posts/writing").await.source(), "redis");

    redis.stop().await.unwrap();
    for _ in 0..3 {
        let answer = blog.reader().get("/posts/writing").await;
        assert_eq!((answer.status, answer.source()), (200, "log"));
        assert_eq!(blog.reader().get("/posts/nothing").await.code(), "not_found");
        let list = blog.reader().get("/posts").await;
        assert_eq!((list.status, list.code().as_str()), (503, "unavailable"));
        assert_ne!(list.header("retry-after"), "");
    }
    eventually("the process says what it lacks", async || {
        let ready = blog.ops().get("/health/ready").await;
        ready.status == 200 && ready.text.contains("Redis does not answer")
    })
    .await;

    redis.restart().await.unwrap();
    eventually("Redis is asked again", async || blog.views.watermarks().await.is_ok()).await;
    blog.project().await;
    eventually("pages and lists come from Redis again", async || {
        let list = blog.reader().get("/posts").await;
        blog.reader().get("/posts/writing").await.source() == "redis" && list.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_hangs_delays_readers_by_its_limit_at_most() {
    let database = database().await;
    let (proxy, redis_url) = shared().redis_proxy();
    let options = [&WITHOUT_MEMORY[..], &["--redis-limit-ms", "250"]].concat();
    let blog = Blog::start_behind(database.url(), database.url(), &redis_url, &options).await;
    blog.publish("writing").await;
    blog.project().await;
    eventually("pages come from Redis", async || {
        blog.reader().get("/posts/writing").await.source() == "redis"
    })
    .await;

    proxy.stall();
    let begun = Instant::now();
    assert_eq!(blog.reader().get("/posts/writing").await.source(), "log");
    // Nothing else would have ended the wait.
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    eventually("Redis is not asked any more", async || {
        let begun = Instant::now();
        let answer = blog.reader().get("/posts/writing").await;
        answer.source() == "log" && begun.elapsed() < Duration::from_millis(200)
    })
    .await;

    proxy.restore();
    eventually("pages come from Redis again", async || {
        blog.reader().get("/posts/writing").await.source() == "redis"
    })
    .await;
}

#[tokio::test]
async fn warm_pages_and_lists_are_served_while_postgres_is_down() {
    let mut postgres = own_postgres().await;
    postgres.ensure_database("blog").await.unwrap();
    let url = postgres.url("blog");
    create_store(url.clone()).await.unwrap();
    let blog = Blog::start_behind(&url, &url, &shared().redis_url, &WITHOUT_MEMORY).await;
    let cold = blog.publish("cold").await;
    let warm = blog.publish("lukewarm").await;
    blog.move_to(warm, "warm").await;
    blog.project().await;
    assert_eq!(blog.reader().get("/posts/warm").await.status, 200);
    assert_eq!(blog.reader().get("/posts/cold").await.status, 200);
    assert_eq!(blog.reader().get("/posts/lukewarm").await.status, 301);
    for slug in ["warm", "lukewarm"] {
        eventually("the slug is remembered", async || {
            blog.views.claim_of(1, &slug.parse().unwrap()).await.unwrap().is_some()
        })
        .await;
    }

    postgres.stop().await.unwrap();
    let answer = blog.reader().get("/posts/warm").await;
    assert_eq!((answer.status, answer.source()), (200, "redis"));
    assert_eq!(blog.reader().get("/posts/lukewarm").await.header("location"), "/posts/warm");
    assert_eq!(slugs_of(&blog.reader().get("/posts").await), ["warm", "cold"]);
    // Redis does not know it, and that is no reason to say that it is not there.
    let answer = blog.reader().get("/posts/unknown").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    assert_ne!(answer.header("retry-after"), "");
    blog.evict(cold).await;
    assert_eq!(blog.reader().get(&format!("/posts/{cold}")).await.code(), "unavailable");
    // There were no views when it was started.
    eventually("the process is ready", async || {
        blog.ops().get("/health/ready").await.status == 200
    })
    .await;

    postgres.restart().await.unwrap();
    eventually("Postgres is asked again", async || {
        let answer = blog.reader().get(&format!("/posts/{cold}")).await;
        (answer.status, answer.source()) == (200, "log")
    })
    .await;
}

#[tokio::test]
async fn a_postgres_that_refuses_is_waited_for_by_nobody() {
    let mut postgres = own_postgres().await;
    postgres.ensure_database("blog").await.unwrap();
    let url = postgres.url("blog");
    create_store(url.clone()).await.unwrap();
    let patient =
        [&WITHOUT_MEMORY[..], &["--log-limit-ms", "60000", "--request-seconds", "60"]].concat();
    let blog = Blog::start_behind(&url, &url, &shared().redis_url, &patient).await;
    let cold = format!("/posts/{}", blog.publish("cold").await);
    assert_eq!(blog.reader().get(&cold).await.source(), "log");

    postgres.stop().await.unwrap();
    for _ in 0..5 {
        let reader = blog.reader();
        let answer = tokio::time::timeout(Duration::from_secs(10), reader.get(&cold)).await;
        assert_eq!(answer.expect("a reader waits").status, 503);
    }
}

#[tokio::test]
async fn without_views_and_postgres_the_process_is_not_ready() {
    let database = database().await;
    let (postgres, database_url) = shared().postgres_proxy(database.name());
    let redis_url = shared().redis_url;
    let blog = Blog::start_behind(database.url(), &database_url, &redis_url, &[]).await;
    let says = async |status: u16, what: &str| {
        let ready = blog.ops().get("/health/ready").await;
        ready.status == status && ready.text.contains(what)
    };
    eventually("the lack is told", async || says(200, "Redis has no views").await).await;
    postgres.cut();
    eventually("nobody can be answered", async || says(503, "Redis has no views").await).await;
    postgres.restore();
    blog.project().await;
    eventually("all is well", async || {
        says(200, "").await && !says(200, "Redis").await && !says(200, "Postgres").await
    })
    .await;
}

#[tokio::test]
async fn a_post_that_was_taken_back_is_not_shown_from_memory_while_postgres_is_down() {
    let database = database().await;
    let (postgres, database_url) = shared().postgres_proxy(database.name());
    let redis_url = shared().redis_url;
    let blog = Blog::start_behind(database.url(), &database_url, &redis_url, &[]).await;
    let id = blog.publish("writing").await;
    blog.project().await;
    eventually("the page is kept", async || {
        blog.reader().get("/posts/writing").await.source() == "memory"
    })
    .await;
    blog.unpublish(id).await;
    postgres.cut();
    blog.project().await;

    eventually("the page is withheld", async || {
        blog.reader().get("/posts/writing").await.status == 503
    })
    .await;
    for address in ["writing".to_owned(), id.to_string()] {
        let answer = blog.reader().get(&format!("/posts/{address}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    }
    postgres.restore();
    eventually("it is known not to be there", async || {
        blog.reader().get("/posts/writing").await.status == 404
    })
    .await;
}

#[tokio::test]
async fn without_redis_and_postgres_pages_are_served_as_they_were_last_seen() {
    let database = database().await;
    let (redis, redis_url) = shared().redis_proxy();
    let (postgres, database_url) = shared().postgres_proxy(database.name());
    let blog = Blog::start_behind(database.url(), &database_url, &redis_url, &[]).await;
    let id = blog.publish("writing").await;
    let never_read = blog.publish("reading").await;
    let deleted = blog.publish("waiting").await;
    blog.delete(deleted).await;
    blog.project().await;
    let seen = blog.reader().get("/posts/writing").await;
    assert_eq!((seen.status, seen.source()), (200, "redis"));
    assert_eq!(blog.reader().get("/posts/waiting").await.status, 410);
    assert_eq!(blog.reader().get("/posts/nothing").await.status, 404);

    redis.cut();
    postgres.cut();
    eventually("the page has had its time", async || {
        blog.reader().get("/posts/writing").await.is_stale()
    })
    .await;
    eventually("nothing is believed not to be there", async || {
        blog.reader().get("/posts/nothing").await.status == 503
    })
    .await;
    for reader in [blog.reader(), blog.reader().as_author("anne")] {
        for address in ["/posts/writing", &format!("/posts/{id}")] {
            let copy = reader.get(address).await;
            assert_eq!((copy.status, copy.source(), copy.is_stale()), (200, "memory", true));
            assert!(copy.age() > 0, "{copy:?}");
            assert_eq!(copy.text, seen.text);
        }
        assert_eq!(reader.get("/post/writing").await.json()["content"], "Begin.");
        assert_eq!(reader.get("/posts/waiting").await.status, 410);
        for address in ["/posts/reading", &format!("/posts/{never_read}"), "/posts/nothing"] {
            let answer = reader.get(address).await;
            assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{address}");
            assert_ne!(answer.header("retry-after"), "");
        }
    }
    eventually("the process is not ready", async || {
        let ready = blog.ops().get("/health/ready").await;
        ready.status == 503 && ready.text.contains("Redis") && ready.text.contains("Postgres")
    })
    .await;

    redis.restore();
    eventually("warm pages are served as they are again", async || {
        !blog.reader().get("/posts/writing").await.is_stale()
            && blog.ops().get("/health/ready").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_broke_while_nobody_used_it_is_not_noticed() {
    let blog = Blog::start_without_memory().await;
    let page = format!("/posts/{}", blog.publish("writing").await);
    assert_eq!(blog.reader().get(&page).await.source(), "log");
    let killed: Vec<bool> = sqlx::query_scalar(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'query-service'",
    )
    .fetch_all(&blog.pool)
    .await
    .unwrap();
    assert!(!killed.is_empty());
    let answer = blog.reader().get(&page).await;
    assert_eq!((answer.status, answer.source()), (200, "log"), "a broken connection was used");
}

#[tokio::test]
async fn without_redis_lists_are_shown_as_they_were_last_seen_and_ones_own_are_not() {
    let database = database().await;
    let (redis, redis_url) = shared().redis_proxy();
    let url = database.url();
    let blog = Blog::start_behind(url, url, &redis_url, &[]).await;
    for slug in ["first", "second", "third"] {
        blog.publish(slug).await;
    }
    blog.project().await;
    let anne = blog.reader().as_author("anne");
    assert_eq!(anne.get("/me/posts").await.status, 200);
    let seen = blog.reader().get("/posts?limit=2").await;
    assert_eq!((slugs_of(&seen).len(), seen.is_stale()), (2, false));

    redis.cut();
    let copy = blog.reader().get("/posts?limit=2").await;
    assert_eq!((copy.status, copy.source(), copy.is_stale()), (200, "memory", true));
    assert_eq!((&copy.text, copy.header("link")), (&seen.text, seen.header("link")));
    assert_eq!(copy.header("etag"), seen.header("etag"));
    assert_eq!(anne.get("/posts?limit=2").await.header("cache-control"), "private, no-store");
    for (reader, address) in [(&blog.reader(), "/posts"), (&anne, "/me/posts")] {
        let answer = reader.get(address).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"), "{address}");
        assert_ne!(answer.header("retry-after"), "");
    }

    redis.restore();
    eventually("lists come from Redis again", async || {
        blog.reader().get("/posts?limit=2").await.source() == "redis"
    })
    .await;
}

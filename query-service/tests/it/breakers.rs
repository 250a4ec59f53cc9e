//! A server that hangs costs the first few readers its time limit, and the others nothing.

use testkit::{Proxy, eventually, shared};

use crate::support::{Blog, WITHOUT_MEMORY, database};

/// Fewer bytes than any question of a reader has. Who watches the servers asks a few times meanwhile.
const TO_REDIS: usize = 250;
const TO_POSTGRES: usize = 40;
const READERS: usize = 200;

#[tokio::test]
async fn a_redis_that_hangs_is_asked_by_a_few_readers_only() {
    let database = database().await;
    let (proxy, redis_url) = shared().redis_proxy();
    let url = database.url();
    let options = [&WITHOUT_MEMORY[..], &["--redis-limit-ms", "250"]].concat();
    let blog = Blog::start_behind(url, url, &redis_url, &options).await;
    let page = format!("/posts/{}", blog.publish("writing").await);
    blog.project().await;
    eventually("pages come from Redis", async || {
        blog.reader().get(&page).await.source() == "redis"
    })
    .await;

    proxy.keep_back();
    nobody_is_asked(&blog, &proxy, &page, (200, "Redis", TO_REDIS)).await;
    proxy.lose_clients();
    eventually("pages come from Redis again", async || {
        blog.reader().get(&page).await.source() == "redis"
    })
    .await;
}

#[tokio::test]
async fn a_postgres_that_hangs_is_asked_by_a_few_readers_only() {
    let database = database().await;
    let (proxy, database_url) = shared().postgres_proxy(database.name());
    let options = [&WITHOUT_MEMORY[..], &["--log-limit-ms", "250"]].concat();
    let redis_url = &shared().redis_url;
    let blog = Blog::start_behind(database.url(), &database_url, redis_url, &options).await;
    let page = format!("/posts/{}", blog.publish("writing").await);
    eventually("pages come from the log", async || {
        blog.reader().get(&page).await.source() == "log"
    })
    .await;

    proxy.keep_back();
    nobody_is_asked(&blog, &proxy, &page, (503, "Postgres", TO_POSTGRES)).await;
    proxy.lose_clients();
    eventually("pages come from the log again", async || {
        blog.reader().get(&page).await.source() == "log"
    })
    .await;
}

/// Readers are answered so without a server that hangs, which is told fewer bytes by all of them than this many each.
async fn nobody_is_asked(
    blog: &Blog,
    proxy: &Proxy,
    page: &str,
    (status, server, least): (u16, &str, usize),
) {
    eventually("it is asked", async || {
        assert_eq!(blog.reader().get(page).await.status, status);
        proxy.kept_back() > 2 * TO_POSTGRES
    })
    .await;
    let open = format!("circuit_open{{server=\"{server}\"}} 1");
    eventually("readers do not ask it any more", async || {
        assert_eq!(blog.reader().get(page).await.status, status);
        let ready = blog.ops().get("/health/ready").await;
        ready.text.contains(&format!("{server} does not answer"))
            && blog.ops().get("/metrics").await.text.contains(&open)
    })
    .await;
    let before = proxy.kept_back();
    for _ in 0..READERS {
        assert_eq!(blog.reader().get(page).await.status, status);
    }
    let asked = proxy.kept_back().saturating_sub(before);
    assert!(asked < READERS * least, "{asked} bytes for {READERS} readers");
}

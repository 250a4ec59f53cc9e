//! Postgres or Redis answers no more, or no longer as the primary does.

use testkit::{Proxy, Signal, eventually, own_postgres, own_redis, own_standby_of, shared};

use crate::support::Blog;

#[tokio::test]
async fn the_log_is_read_from_the_new_server_after_a_failover() {
    let old = own_postgres().await;
    old.ensure_database("blog").await.unwrap();
    let mut blog = Blog::on_postgres(&old.url("blog")).await;
    let new = own_standby_of(&old).await;
    let proxy = Proxy::start(&old.address());
    blog.reaches_postgres_at(old.url("blog").replace(&old.address(), &proxy.address()));
    let projector = blog.project_impatiently().await;
    blog.publish_in_all(2).await;
    blog.views_agree_with_the_log().await;
    let head = blog.log.head().await.unwrap();
    eventually("the standby has it all", async || {
        let pool = sqlx::PgPool::connect(&new.url("blog")).await.unwrap();
        let events: i64 =
            sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&pool).await.unwrap();
        events == i64::try_from(head.0).unwrap()
    })
    .await;

    // Connections to the old server live on.
    old.set_read_only(true).await.unwrap();
    new.promote().await.unwrap();
    proxy.lead_to(&new.address());
    blog.moves_to(&new.url("blog")).await;
    blog.publish_in_all(2).await;
    blog.views_agree_with_the_log().await;
    eventually("it is ready", async || projector.health().await.0 == 200).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_postgres_that_takes_no_writes_is_known() {
    let postgres = own_postgres().await;
    postgres.ensure_database("blog").await.unwrap();
    let blog = Blog::on_postgres(&postgres.url("blog")).await;
    let projector = blog.project().await;
    eventually("it is ready", async || projector.health().await.0 == 200).await;
    postgres.set_read_only(true).await.unwrap();
    eventually("it says what is wrong", async || {
        projector.unready("postgres").await.is_some_and(|why| why.contains("read-only"))
    })
    .await;
    postgres.set_read_only(false).await.unwrap();
    eventually("it is ready again", async || projector.health().await.0 == 200).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_postgres_that_hangs_is_known() {
    let mut blog = Blog::new().await;
    let proxy = blog.puts_a_proxy_before_postgres();
    let projector = blog.project().await;
    eventually("it is ready", async || projector.health().await.0 == 200).await;
    proxy.stall();
    eventually("it is not ready", async || projector.unready("postgres").await.is_some()).await;
    proxy.restore();
    eventually("it is ready again", async || projector.health().await.0 == 200).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_kafka_that_is_away_or_hangs_is_known() {
    let proxy = shared().kafka_proxy().await;
    let blog = Blog::with_kafka(&proxy.address()).await;
    let projector = blog.project().await;
    let is_known = async |what: &str| {
        eventually(what, async || projector.unready("kafka").await.is_some()).await;
        eventually("events are projected all the same", async || projector.health().await.0 == 200)
            .await;
    };
    let is_well = async || {
        eventually("Kafka is well", async || projector.unready("kafka").await.is_none()).await;
    };
    is_well().await;
    proxy.stall();
    is_known("it hangs").await;
    proxy.restore();
    is_well().await;
    proxy.cut();
    is_known("it is away").await;
    proxy.restore();
    is_well().await;
    projector.stop().await;
}

#[tokio::test]
async fn a_redis_that_stands_still_is_known() {
    let mut redis = own_redis().await;
    let blog = Blog::with_redis(&redis.url()).await;
    let projector = blog.project().await;
    eventually("it is ready", async || projector.health().await.0 == 200).await;
    redis.process().signal(Signal::Stop).unwrap();
    eventually("it is not ready", async || projector.unready("redis").await.is_some()).await;
    redis.process().signal(Signal::Continue).unwrap();
    eventually("it is ready again", async || projector.health().await.0 == 200).await;
    projector.stop().await;
}

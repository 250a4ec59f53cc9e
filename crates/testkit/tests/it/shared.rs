//! Tests keep apart on the servers they share.

use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::{Connection, Executor, PgConnection};
use testkit::{
    TestDatabase, create_topic, delete_topic, eventually, patient_connection, shared,
    topic_partitions, unique_name,
};

#[tokio::test]
async fn a_template_is_made_once_and_copied_for_everybody() {
    let made = AtomicUsize::new(0);
    let name = unique_name("template");
    let copy = || {
        TestDatabase::from_template(&name, async |url: String| {
            made.fetch_add(1, Ordering::Relaxed);
            let mut connection = PgConnection::connect(&url).await?;
            connection.execute("CREATE TABLE posts (id int)").await.map(drop)
        })
    };

    let (one, two, three) = tokio::join!(copy(), copy(), copy());

    assert_eq!(made.into_inner(), 1);
    for database in [&one, &two, &three] {
        database.connect().await.execute("INSERT INTO posts VALUES (1)").await.unwrap();
    }
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM posts")
        .fetch_one(&mut two.connect().await)
        .await
        .unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_proxied_address_leads_to_the_same_database() {
    let database = TestDatabase::create().await;
    let (proxy, url) = shared().postgres_proxy(database.name());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut connection).await.unwrap();
    assert_eq!(name, database.name());

    proxy.cut();
    assert!(PgConnection::connect(&url).await.is_err());
}

#[tokio::test]
async fn a_proxied_redis_is_reached_until_the_wire_is_cut() {
    let (proxy, url) = shared().redis_proxy();
    patient_connection(&url).await.unwrap();
    proxy.cut();
    assert!(patient_connection(&url).await.is_err());
}

#[tokio::test]
async fn a_topic_is_there_when_created_and_gone_when_deleted() {
    let kafka = shared().kafka;
    let topic = unique_name("topic");
    create_topic(&kafka, &topic, 4).await;
    assert_eq!(topic_partitions(&kafka, &topic).await, 4);
    delete_topic(&kafka, &topic).await;
    eventually("the topic is gone", async || topic_partitions(&kafka, &topic).await == 0).await;
}

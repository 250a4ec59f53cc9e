//! The relay's row in Postgres: who may publish, and how often it is written.

use std::time::Duration;

use command_service::relay::LOOK;
use testkit::{eventually, shared, unique_name};

use crate::relay::{Store, in_order, read_positions};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(300);

#[tokio::test]
async fn a_relay_gives_its_lease_back_after_an_error() {
    let store = Store::new().await;
    let topic = unique_name("events");
    // As after a restore, without the operator's command.
    store.set("cursor = 1000").await;
    let relay = store.relay_with(LONG, LOOK, &topic, &shared().kafka);
    eventually("a round has failed", async || store.token().await > 0).await;
    store.record(0..10).await;
    eventually("the rest is published", async || {
        // A round that has just read the wrong one may write it once more.
        store.set("cursor = 0 WHERE cursor = 1000").await;
        store.cursor().await == 10
    })
    .await;
    let messages = read_positions(&shared().kafka, &topic, 10).await;
    assert_eq!(in_order(messages), (1..=10).collect::<Vec<_>>());
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_lease_from_before_the_clock_was_set_back_is_taken() {
    let store = Store::new().await;
    let topic = unique_name("events");
    store.set("expires_at = clock_timestamp() + interval '1 hour'").await;
    store.record(0..10).await;
    let relay = store.relay(&topic, &shared().kafka);
    eventually("the relay carries events", async || store.cursor().await == 10).await;
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn a_lease_without_an_end_is_left_alone() {
    let store = Store::new().await;
    let topic = unique_name("events");
    store.set("expires_at = 'infinity', token = 7").await;
    store.record(0..10).await;
    let relay = store.relay(&topic, &shared().kafka);
    // It asks six times in this time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((store.token().await, store.cursor().await), (7, 0));
    store.set("expires_at = '-infinity'").await;
    eventually("the relay carries events", async || store.cursor().await == 10).await;
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn the_row_of_an_idle_relay_is_written_to_renew_the_lease_only() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let relay = store.relay_with(LONG, LOOK, &topic, &shared().kafka);
    store.record(0..10).await;
    eventually("the relay carries events", async || store.cursor().await == 10).await;
    let version = store.version().await;
    // A slow machine writes less, never more.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(store.version().await, version);
    }
    store.record(10..11).await;
    eventually("the cursor is saved", async || store.cursor().await == 11).await;
    relay.stop().await.unwrap();
}

#[tokio::test]
async fn an_idle_relay_keeps_its_lease() {
    let store = Store::new().await;
    let topic = unique_name("events");
    let relay = store.relay(&topic, &shared().kafka);
    store.record(0..10).await;
    eventually("the relay carries events", async || store.cursor().await == 10).await;
    for _ in 0..3 {
        let version = store.version().await;
        eventually("the lease is renewed", async || store.version().await != version).await;
    }
    relay.stop().await.unwrap();
}

impl Store {
    async fn set(&self, what: &str) {
        let sql = format!("UPDATE relay SET {what}");
        sqlx::query(&sql).execute(&self.pool).await.unwrap();
    }

    /// Returns what changes with every update of the row.
    async fn version(&self) -> String {
        sqlx::query_scalar("SELECT xmin::text FROM relay").fetch_one(&self.pool).await.unwrap()
    }
}

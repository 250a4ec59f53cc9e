//! Word of what one process records reaches the relay of another; and if it does not, nothing is lost.

use std::time::Duration;

use command_service::relay::LOOK;
use sqlx::PgPool;
use testkit::{eventually, shared, unique_name};

use crate::relay::{Running, Store};

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_another_process_records_is_published_on_its_word() {
    let (here, there) = two_processes().await;
    let topic = unique_name("events");
    let (active, standing_by) = one_active(&here, &there, &topic).await;
    there.record(1..2).await;
    eventually("the first is carried", async || here.cursor().await == 2).await;
    there.record(2..40).await;
    eventually("so are those that follow", async || here.cursor().await == 40).await;
    active.stop().await.unwrap();
    standing_by.stop().await.unwrap();
}

#[tokio::test]
async fn a_relay_that_was_deaf_for_a_moment_hears_again() {
    let (here, there) = two_processes().await;
    let topic = unique_name("events");
    let (active, standing_by) = one_active(&here, &there, &topic).await;
    sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()")
        .execute(&here.pool)
        .await
        .unwrap();
    there.record(1..2).await;
    eventually("what it did not hear of is carried", async || here.cursor().await == 2).await;
    eventually("it listens", async || listening(&here.pool).await == 1).await;
    there.record(2..3).await;
    eventually("what it hears of is carried", async || here.cursor().await == 3).await;
    active.stop().await.unwrap();
    standing_by.stop().await.unwrap();
}

#[tokio::test]
async fn what_no_word_was_sent_of_is_found_by_looking() {
    let (here, silent) = two_processes().await;
    let topic = unique_name("events");
    let active = here.relay_that_looks(LOOK, &topic, &shared().kafka);
    here.record(0..1).await;
    eventually("it is carried", async || here.cursor().await == 1).await;
    // Nobody there hears its writer, so nobody sends word.
    silent.record(1..2).await;
    eventually("so is this", async || here.cursor().await == 2).await;
    active.stop().await.unwrap();
}

async fn two_processes() -> (Store, Store) {
    let here = Store::new().await;
    let there = Store::of(here.database.clone()).await;
    (here, there)
}

/// The relays of two processes, the first of which is active and does not look by itself.
async fn one_active(here: &Store, there: &Store, topic: &str) -> (Running, Running) {
    let active = here.relay_that_looks(NEVER, topic, &shared().kafka);
    here.record(0..1).await;
    eventually("it is active", async || here.cursor().await == 1).await;
    eventually("it listens", async || listening(&here.pool).await == 1).await;
    (active, there.relay_that_looks(NEVER, topic, &shared().kafka))
}

async fn listening(pool: &PgPool) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE query LIKE 'LISTEN%' AND datname = current_database()",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

//! Expired idempotency keys: removed by one process at a time, at a cost that live keys do not change.

use std::time::Duration;

use command_service::expiry::{REMOVE, remove_older};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};

use crate::support::new_database;

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn live_keys_are_not_read_when_expired_ones_are_removed() {
    let database = new_database().await;
    let mut connection = database.connect().await;
    add_keys(&mut connection, "live", 20_000, "0 hours").await;
    add_keys(&mut connection, "expired", 5, "25 hours").await;
    // Nothing is known of the table yet: the plan must not depend on it.
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {REMOVE}");
    let mut transaction = connection.begin().await.unwrap();
    let plan: Value = sqlx::query_scalar(&explain)
        .bind(DAY)
        .bind(1000_i64)
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    let plan = &plan[0]["Plan"];
    let buffers = ["Shared Hit Blocks", "Shared Read Blocks"]
        .map(|kind| plan[kind].as_u64().expect("the plan names its buffers"));
    assert!(buffers.iter().sum::<u64>() < 60, "{buffers:?} buffers:\n{plan:#}");

    let pool = PgPool::connect(database.url()).await.unwrap();
    assert_eq!(remove_older(&pool, DAY).await.unwrap(), Some(5));
    assert_eq!(keys(&mut connection).await, 20_000);
}

#[tokio::test]
async fn expired_keys_are_removed_by_one_process_at_a_time() {
    let database = new_database().await;
    let mut connection = database.connect().await;
    add_keys(&mut connection, "expired", 2500, "25 hours").await;
    let mut other = connection.begin().await.unwrap();
    other.execute("SELECT pg_advisory_xact_lock(6909548)").await.unwrap();
    let pool = PgPool::connect(database.url()).await.unwrap();
    assert_eq!(remove_older(&pool, DAY).await.unwrap(), None);
    other.rollback().await.unwrap();
    assert_eq!(keys(&mut connection).await, 2500);
    // In more than one step.
    assert_eq!(remove_older(&pool, DAY).await.unwrap(), Some(2500));
    assert_eq!(keys(&mut connection).await, 0);
}

async fn add_keys(connection: &mut PgConnection, author: &str, count: i32, age: &str) {
    sqlx::query(
        "INSERT INTO idempotency_keys
         SELECT $1, 'key-' || number, gen_random_uuid(), '\\x00', '{}', 1, 1, now() - $3::interval
         FROM generate_series(1, $2) AS number",
    )
    .bind(author)
    .bind(count)
    .bind(age)
    .execute(connection)
    .await
    .unwrap();
}

async fn keys(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM idempotency_keys").fetch_one(connection).await.unwrap()
}

//! Reads that were given up: their backends do not pile up behind a lock.

use std::time::Duration;

use event_log::PoolSettings;
use sqlx::{Connection as _, Executor as _};
use testkit::eventually;

use crate::support::new_database;

#[tokio::test]
async fn a_read_that_was_given_up_leaves_no_backend_behind() {
    let database = new_database().await;
    let settings = PoolSettings {
        name: "impatient reader",
        connections: 2,
        acquire_limit: Duration::from_secs(60),
        options: &[],
        for_scans: false,
    };
    let pool = event_log::pool(database.url(), settings).unwrap();
    let (mut holder, mut watcher) = (database.connect().await, database.connect().await);
    let mut lock = holder.begin().await.unwrap();
    lock.execute("LOCK TABLE events").await.unwrap();
    for _ in 0..6 {
        let read = pool.execute("SELECT count(*) FROM events");
        assert!(tokio::time::timeout(Duration::from_secs(2), read).await.is_err());
    }
    // The lock is still held, and longer than this test lasts.
    eventually("their backends have ended", async || {
        let backends: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'impatient reader'",
        )
        .fetch_one(&mut watcher)
        .await
        .unwrap();
        backends == 0
    })
    .await;
    lock.rollback().await.unwrap();
}

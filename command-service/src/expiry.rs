//! Removes idempotency keys whose time is over, in small steps, so that no commit waits for it.

use std::time::Duration;

use anyhow::Context as _;
use service_runtime::progress;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// How often it is looked for old keys.
const EVERY: Duration = Duration::from_secs(60);
/// How many are removed in one statement.
const STEP: i64 = 1000;
/// No step takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Expiry {
    pub(crate) pool: PgPool,
    pub(crate) keep: Duration,
}

impl Expiry {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(EVERY);
        while progress::idle(stop.run_until_cancelled(every.tick())).await.is_some() {
            match stop.run_until_cancelled(remove_older(&self.pool, self.keep)).await {
                None | Some(Ok(0)) => {}
                Some(Ok(removed)) => tracing::debug!("Removed {removed} idempotency keys"),
                // The next time will do.
                Some(Err(error)) => tracing::warn!("Old idempotency keys stay for now: {error:#}"),
            }
        }
        Ok(())
    }
}

/// Removes the keys that are older than this, and tells how many those were.
pub(crate) async fn remove_older(pool: &PgPool, age: Duration) -> anyhow::Result<u64> {
    let mut removed = 0;
    loop {
        progress::tick();
        // Several processes do this at the same time; each passes over what another is removing.
        let step = sqlx::query(
            "DELETE FROM idempotency_keys
             WHERE (author, key) IN (
                 SELECT author, key FROM idempotency_keys
                 WHERE recorded_at < clock_timestamp() - $1
                 ORDER BY recorded_at
                 LIMIT $2
                 FOR UPDATE SKIP LOCKED
             )",
        )
        .bind(age)
        .bind(STEP)
        .execute(pool);
        let step = tokio::time::timeout(TIME_LIMIT, step).await.context("took too long")??;
        removed += step.rows_affected();
        if step.rows_affected() < STEP.unsigned_abs() {
            return Ok(removed);
        }
    }
}

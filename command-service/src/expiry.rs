//! Removes expired idempotency keys, in small steps, so that no commit waits for it.

use std::time::Duration;

use anyhow::Context as _;
use service_runtime::progress;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Interval between two removals.
const REMOVE_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of keys that are removed in one step.
const STEP: i64 = 1000;
/// Timeout for a step.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Advisory lock of the process that removes keys.
const LOCK: i64 = 6_909_548;

/// Statement that removes keys older than `$1`, `$2` of them at most.
///
/// `now()` is stable, so the age is a bound of the index scan. `clock_timestamp()` would be compared
/// with every key.
pub const REMOVE: &str = "
    DELETE FROM idempotency_keys
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM idempotency_keys
        WHERE recorded_at < now() - $1::interval
        ORDER BY recorded_at
        LIMIT $2
    ))";

#[derive(Debug)]
pub(crate) struct Expiry {
    pub(crate) pool: PgPool,
    pub(crate) keep: Duration,
}

impl Expiry {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(REMOVE_INTERVAL);
        while progress::idle(stop.run_until_cancelled(every.tick())).await.is_some() {
            match stop.run_until_cancelled(remove_older(&self.pool, self.keep)).await {
                None | Some(Ok(None | Some(0))) => {}
                Some(Ok(Some(removed))) => tracing::debug!(removed, "idempotency keys removed"),
                Some(Err(error)) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "expired idempotency keys stay until the next removal");
                }
            }
        }
        Ok(())
    }
}

/// Removes the keys that are older than `age`. Returns their number, or `None` if another process is
/// removing keys.
pub async fn remove_older(pool: &PgPool, age: Duration) -> anyhow::Result<Option<u64>> {
    let mut removed = 0;
    loop {
        progress::tick();
        let step = tokio::time::timeout(STEP_TIMEOUT, remove_step(pool, age));
        let Some(step) = step.await.context("took too long")?? else {
            return Ok((removed > 0).then_some(removed));
        };
        removed += step;
        if step < STEP.unsigned_abs() {
            return Ok(Some(removed));
        }
    }
}

async fn remove_step(pool: &PgPool, age: Duration) -> sqlx::Result<Option<u64>> {
    let mut transaction = pool.begin().await?;
    // One process at a time: the others would read the same keys, and wait for their rows.
    let is_ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *transaction)
        .await?;
    if !is_ours {
        transaction.rollback().await?;
        return Ok(None);
    }
    let step = sqlx::query(REMOVE).bind(age).bind(STEP).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Some(step.rows_affected()))
}

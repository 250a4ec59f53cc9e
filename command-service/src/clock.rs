//! Compares the time of the newest events with the clock of Postgres.
//!
//! A clock that was set back leaves events that are ahead of it. `append_events` follows such an
//! event for a minute at most, and readers see it above later ones until the clock has caught up.

use std::time::Duration;

use anyhow::Context as _;
use service_runtime::{Check, progress};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Interval between two comparisons.
const COMPARE_INTERVAL: Duration = Duration::from_secs(5);
/// Timeout for a comparison.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of newest events that are compared.
const EVENTS: i64 = 100;
/// Distance from which the clock counts as wrong, in seconds.
const MAX_AHEAD_SECONDS: f64 = 1.0;

#[derive(Debug)]
pub(crate) struct Clock {
    pub(crate) pool: PgPool,
    pub(crate) check: Check,
}

impl Clock {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        // Until the first comparison there is no reason to hold requests back.
        self.check.ready();
        let mut every = tokio::time::interval(COMPARE_INTERVAL);
        while progress::idle(stop.run_until_cancelled(every.tick())).await.is_some() {
            match stop.run_until_cancelled(self.compare()).await {
                None | Some(Ok(())) => {}
                // Another check tells that Postgres is away.
                Some(Err(error)) => {
                    tracing::debug!(error = format!("{error:#}"), "clock not compared");
                }
            }
        }
        Ok(())
    }

    async fn compare(&self) -> anyhow::Result<()> {
        let ahead = sqlx::query_scalar(
            "SELECT coalesce(extract(epoch FROM max(recorded_at) - clock_timestamp()), 0)::float8
             FROM (SELECT recorded_at FROM events ORDER BY position DESC LIMIT $1) AS newest",
        )
        .bind(EVENTS)
        .fetch_one(&self.pool);
        let ahead: f64 =
            tokio::time::timeout(COMPARE_TIMEOUT, ahead).await.context("took too long")??;
        metrics::gauge!("event_time_ahead_seconds").set(ahead.max(0.0));
        if ahead > MAX_AHEAD_SECONDS {
            self.check.degraded(format!(
                "the newest events are {ahead:.0} s ahead of the clock of Postgres, which was set back"
            ));
        } else {
            self.check.ready();
        }
        Ok(())
    }
}

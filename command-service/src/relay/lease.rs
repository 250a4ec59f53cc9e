//! Who may carry the log to Kafka, and how far it has come: one row in Postgres, by its clock.

use std::time::Duration;

use anyhow::Context;
use domain::Position;
use sqlx::PgPool;

/// No question takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// The lease, as one process sees it.
#[derive(Debug)]
pub(super) struct Lease {
    pool: PgPool,
    holder: String,
    duration: Duration,
}

/// The right to move the cursor, for as long as nobody else has taken it.
#[derive(Debug)]
pub(super) struct Held {
    /// Grows with each holder. Every move of the cursor names it, so that one who lost the lease without
    /// noticing moves nothing.
    token: i64,
    /// Everything up to here is in Kafka.
    pub cursor: Position,
}

impl Lease {
    pub(super) fn new(pool: PgPool, holder: String, duration: Duration) -> Self {
        Self { pool, holder, duration }
    }

    /// Takes the lease if it is free. One that ends later than any holder could have set it is free, too: the clock
    /// of Postgres was set back. One that never ends is an operator's, who wants the relay to rest.
    pub(super) async fn take(&self) -> anyhow::Result<Option<Held>> {
        let taken = sqlx::query_as(
            "UPDATE relay
             SET token = token + 1, holder = $1, expires_at = clock_timestamp() + $2::interval
             WHERE expires_at < clock_timestamp()
                OR (isfinite(expires_at) AND expires_at > clock_timestamp() + 2 * $2::interval)
             RETURNING token, cursor",
        )
        .bind(&self.holder)
        .bind(self.duration)
        .fetch_optional(&self.pool);
        let taken: Option<(i64, i64)> =
            tokio::time::timeout(TIME_LIMIT, taken).await.context("took too long")??;
        Ok(taken.map(|(token, cursor)| Held { token, cursor: Position::from_i64(cursor) }))
    }

    /// Moves the cursor forward and renews the lease. `false`: it is somebody else's by now.
    pub(super) async fn advance(&self, held: &Held, cursor: Position) -> anyhow::Result<bool> {
        self.update(held, cursor, self.duration).await
    }

    /// Gives the lease back, so that another process need not wait until it has run out.
    pub(super) async fn give_back(&self, held: &Held, cursor: Position) -> anyhow::Result<()> {
        self.update(held, cursor, Duration::ZERO).await.map(|_| ())
    }

    async fn update(
        &self,
        held: &Held,
        cursor: Position,
        duration: Duration,
    ) -> anyhow::Result<bool> {
        let moved = sqlx::query(
            "UPDATE relay
             SET cursor = greatest(cursor, $2), expires_at = clock_timestamp() + $3
             WHERE token = $1",
        )
        .bind(held.token)
        .bind(cursor.to_i64())
        .bind(duration)
        .execute(&self.pool);
        let moved = tokio::time::timeout(TIME_LIMIT, moved).await.context("took too long")??;
        Ok(moved.rows_affected() == 1)
    }
}

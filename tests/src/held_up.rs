//! Commits held up at will, so that a test can break something while they are surely in hand.

use sqlx::{Connection, PgConnection};
use testkit::eventually;

use crate::blog::Blog;

/// The lock under which positions are given, taken away from the command services.
#[derive(Debug)]
pub struct HeldUp {
    connection: PgConnection,
}

impl Blog {
    /// Holds up all commits from now on.
    ///
    /// # Panics
    ///
    /// If Postgres does not answer.
    pub async fn hold_up_commits(&self) -> HeldUp {
        let mut connection = self.postgres().await;
        sqlx::query("SELECT pg_advisory_lock(6909547)")
            .execute(&mut connection)
            .await
            .expect("the lock cannot be had");
        HeldUp { connection }
    }
}

impl HeldUp {
    /// Waits until so many command services wait with some.
    ///
    /// # Panics
    ///
    /// If Postgres does not answer, or nobody commits anything.
    #[must_use]
    pub async fn waited_for_by(mut self, services: i64) -> Self {
        eventually("commits wait for the lock", async || {
            let waiting: Result<i64, _> = sqlx::query_scalar(
                "SELECT count(*)
                 FROM pg_locks
                 WHERE locktype = 'advisory' AND NOT granted
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            )
            .fetch_one(&mut self.connection)
            .await;
            waiting.expect("Postgres did not answer") >= services
        })
        .await;
        self
    }

    /// Lets commits go on.
    ///
    /// # Panics
    ///
    /// If Postgres does not answer.
    pub async fn release(self) {
        self.connection.close().await.expect("the lock is not released");
    }
}

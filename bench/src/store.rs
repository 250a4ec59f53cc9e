//! Stores to measure on: each a new database, as `command-service migrate` makes one.

use anyhow::Context;
use domain::Partitions;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use testkit::TestDatabase;

/// A store of its own.
#[derive(Debug)]
pub(crate) struct NewStore {
    pub(crate) database: TestDatabase,
    pub(crate) pool: PgPool,
    pub(crate) partitions: Partitions,
}

impl NewStore {
    pub(crate) async fn create() -> anyhow::Result<Self> {
        let database = TestDatabase::create().await;
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .test_before_acquire(false)
            .connect(database.url())
            .await?;
        event_log::migrate(&pool).await?;
        let partitions = Partitions::new(16).context("a store has partitions")?;
        event_log::create(&pool, partitions).await?;
        Ok(Self { database, pool, partitions })
    }
}

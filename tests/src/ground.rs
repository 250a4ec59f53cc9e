//! The servers that a blog stands on.

use testkit::{TestDatabase, shared};

/// Where a blog finds Postgres, Redis and Kafka. A test that breaks one of them brings its own:
/// `Ground { redis_url: redis.url(), ..Ground::shared().await }`.
#[derive(Debug, Clone)]
pub struct Ground {
    /// A database nobody else uses.
    pub database_url: String,
    pub redis_url: String,
    /// `host:port`
    pub kafka: String,
}

impl Ground {
    /// The servers of this run, with a new database.
    ///
    /// # Panics
    ///
    /// If Postgres does not answer.
    pub async fn shared() -> Self {
        let shared = shared();
        let database = TestDatabase::create().await;
        Self {
            database_url: database.url().to_owned(),
            redis_url: shared.redis_url,
            kafka: shared.kafka,
        }
    }
}

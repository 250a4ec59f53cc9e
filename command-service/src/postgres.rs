//! The ways to Postgres, and how the store fares there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use event_log::{EventLog, PoolSettings};
use service_runtime::Check;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use crate::Config;

/// What Postgres calls us.
const NAME: &str = "command-service";

pub(crate) fn address(config: &Config) -> anyhow::Result<PgConnectOptions> {
    event_log::address(config.database_url.reveal(), NAME)
}

/// At most so many connections, each with these settings of Postgres.
pub(crate) fn pool(
    config: &Config,
    connections: u32,
    options: &[(&str, &str)],
) -> anyhow::Result<PgPool> {
    let acquire_limit = Duration::from_secs(3);
    let settings = PoolSettings { name: NAME, connections, acquire_limit, options };
    event_log::pool(config.database_url.reveal(), settings)
}

/// Asks Postgres once a second whether it is there, and in which life the store is.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) log: EventLog,
    pub(crate) incarnation: Arc<AtomicU32>,
    pub(crate) postgres: Check,
}

impl Watch {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            match stop.run_until_cancelled(self.look()).await {
                None => {}
                Some(Ok(())) => self.postgres.ready(),
                Some(Err(error)) => self.postgres.not_ready(format!("{error:#}")),
            }
        }
        Ok(())
    }

    async fn look(&self) -> anyhow::Result<()> {
        metrics::gauge!("log_head").set(self.log.head().await?.0 as f64);
        self.incarnation.store(self.log.incarnation().await?, Ordering::Relaxed);
        Ok(())
    }
}

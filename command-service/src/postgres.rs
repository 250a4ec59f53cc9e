//! The ways to Postgres, and how the store fares there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use domain::Position;
use event_log::{PoolSettings, Probe, TokenKey};
use http_api::ConsistencyTokens;
use read_model::Views;
use service_runtime::{Check, progress};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use crate::Config;
use crate::relay::RelayHealth;

/// What Postgres calls us.
const NAME: &str = "command-service";
/// Timeout of one question to the store.
const TIME_LIMIT: Duration = Duration::from_secs(5);

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
    let settings =
        PoolSettings { name: NAME, connections, acquire_limit, options, for_scans: false };
    event_log::pool(config.database_url.reveal(), settings)
}

/// Asks Postgres once a second whether it is there and takes writes, and for the store's incarnation.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) probe: Probe,
    /// Whose watermarks are looked at for those who wait.
    pub(crate) views: Views,
    pub(crate) consistency: ConsistencyTokens,
    pub(crate) postgres: Check,
    pub(crate) read_only: ReadOnly,
    /// Learns how far the relay has come, whichever process runs it.
    pub(crate) relay: RelayHealth,
}

/// Flag that Postgres answers and takes no writes. Commands are then rejected without an attempt.
/// Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadOnly(Arc<AtomicBool>);

impl ReadOnly {
    /// Returns `true` while Postgres answers and takes no writes.
    pub(crate) fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, read_only: bool) {
        self.0.store(read_only, Ordering::Relaxed);
    }
}

impl Watch {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            progress::tick();
            match stop.run_until_cancelled(self.look()).await {
                None => {}
                Some(Ok(())) => {
                    self.postgres.ready();
                    self.read_only.set(false);
                }
                Some(Err(error)) => {
                    self.postgres.not_ready(format!("{error:#}"));
                    let read_only = error.downcast_ref().is_some_and(event_log::is_read_only);
                    self.read_only.set(read_only);
                }
            }
        }
        Ok(())
    }

    async fn look(&self) -> anyhow::Result<()> {
        let standing = async {
            let mut probing = self.probe.connection().await?;
            let standing = sqlx::query_as(
                "SELECT store.incarnation, store.token_key, relay.cursor, (SELECT coalesce(max(position), 0) FROM events),
                    (SELECT number FROM generations WHERE state = 'active' ORDER BY turn DESC LIMIT 1)
                 FROM store, relay",
            );
            let standing = standing.fetch_one(&mut *probing).await?;
            self.probe.keep(probing);
            Ok::<_, sqlx::Error>(standing)
        };
        let (incarnation, key, cursor, head, generation): (i32, Vec<u8>, i64, i64, Option<i32>) =
            tokio::time::timeout(TIME_LIMIT, standing).await.context("took too long")??;
        self.consistency.update(incarnation.unsigned_abs(), TokenKey::from_bytes(&key)?.0);
        // Of whatever version: whoever waits, waits for what most readers see.
        if let Some(generation) = generation {
            self.views.switch_to(generation.unsigned_abs());
        }
        self.relay.observe(Position::from_i64(cursor), Position::from_i64(head));
        // Told by every process, for it matters most when none of them is carrying anything.
        metrics::gauge!("log_head").set(head as f64);
        metrics::gauge!("relay_cursor").set(cursor as f64);
        metrics::gauge!("relay_lag_events").set((head - cursor) as f64);
        Ok(())
    }
}

//! Connections to Postgres that nobody waits for in vain.

use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};

/// How long a connection that comes back to the pool has to show that it is still good for something.
const CHECK_LIMIT: Duration = Duration::from_secs(1);

/// Who connects, how often, and how.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings<'a> {
    /// The name that Postgres shows for the connections.
    pub name: &'a str,
    /// How many there are at most.
    pub connections: u32,
    /// How long to wait for one.
    pub acquire_limit: Duration,
    /// Settings of Postgres for each.
    pub options: &'a [(&'a str, &'a str)],
    /// Whether scans are read from them a little at a time, which take long and must not be logged as slow.
    pub for_scans: bool,
}

/// A pool whose connections are made when they are first needed.
pub fn pool(url: &str, settings: PoolSettings<'_>) -> anyhow::Result<PgPool> {
    let address = address(url, settings.name)?.options(settings.options.iter().copied());
    let address = if settings.for_scans { address.disable_statement_logging() } else { address };
    Ok(PgPoolOptions::new()
        .max_connections(settings.connections)
        .acquire_timeout(settings.acquire_limit)
        // It would cost every use a round trip. A broken connection shows when it is used.
        .test_before_acquire(false)
        // After a read that was given up, the connection still has the answer coming. sqlx waits for it before
        // anybody else may have the connection, and on a network that swallows packets that is for ever.
        .after_release(|connection, _| {
            Box::pin(async move {
                match tokio::time::timeout(CHECK_LIMIT, connection.ping()).await {
                    Ok(checked) => checked.map(|()| true),
                    Err(elapsed) => Err(sqlx::Error::Io(elapsed.into())),
                }
            })
        })
        .connect_lazy_with(address))
}

/// Where Postgres is, for who connects under this name.
pub fn address(url: &str, name: &str) -> anyhow::Result<PgConnectOptions> {
    let address: PgConnectOptions = url.parse().context("INKSTREAM_DATABASE_URL cannot be used")?;
    Ok(address.application_name(name))
}

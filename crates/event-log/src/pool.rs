//! Connections to Postgres: none is waited for without a limit, and none leads to a server that takes
//! no writes.

use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool};

use crate::writable;

/// Timeout for the question whether a connection still leads to a server that takes writes.
const CHECK_LIMIT: Duration = Duration::from_secs(1);
/// Maximum idle time of a connection that is used without that question.
const UNCHECKED_IDLE: Duration = Duration::from_secs(1);

/// Settings of Postgres by which a backend ends soon after its client has gone, even while it waits for
/// a lock. Without them every call that was given up would keep one.
pub const VANISHED_CLIENT: [(&str, &str); 5] = [
    // For a closed socket, while a call runs.
    ("client_connection_check_interval", "1s"),
    // For a machine that vanished, on an idle connection.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    // The same, while an answer is on its way.
    ("tcp_user_timeout", "10s"),
];

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
///
/// It drops connections to a demoted or read-only server. Each use begins on a connection whose server
/// took writes within the last second, so no restart is needed after a failover.
pub fn pool(url: &str, settings: PoolSettings<'_>) -> anyhow::Result<PgPool> {
    let address = address(url, settings.name)?.options(settings.options.iter().copied());
    let address = if settings.for_scans {
        // A scan lets Postgres wait for its client, so a full window says nothing of a client that vanished.
        address.disable_statement_logging().options([("tcp_user_timeout", "0")])
    } else {
        address
    };
    Ok(PgPoolOptions::new()
        .max_connections(settings.connections)
        .acquire_timeout(settings.acquire_limit)
        // A ping would cost every use a round trip.
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(check(connection)))
        .before_acquire(|connection, seen| {
            Box::pin(async move {
                if seen.idle_for >= UNCHECKED_IDLE {
                    check(connection).await?;
                }
                Ok(true)
            })
        })
        // A read that was given up leaves an answer on its connection. sqlx waits for it before the next
        // use. Without a timeout, it would wait forever on a network that drops packets.
        .after_release(|connection, _| {
            Box::pin(async move { check(connection).await.map(|()| true) })
        })
        .connect_lazy_with(address))
}

async fn check(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    match tokio::time::timeout(CHECK_LIMIT, writable::require_writable(connection)).await {
        Ok(checked) => checked,
        Err(elapsed) => Err(sqlx::Error::Io(elapsed.into())),
    }
}

/// Where Postgres is, for who connects under this name.
pub fn address(url: &str, name: &str) -> anyhow::Result<PgConnectOptions> {
    let address: PgConnectOptions = url.parse().context("INKSTREAM_DATABASE_URL cannot be used")?;
    Ok(address.application_name(name).options(VANISHED_CLIENT))
}

//! Tells a primary from a server that takes no writes: a hot standby, or a primary that was made
//! read-only.
//!
//! After a failover, connections to the demoted server live on. What it answers is out of date, so
//! neither readers nor writers may use it.

use std::io;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

/// Why a server that answers must not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadOnly {
    #[error("Postgres is in recovery: it is a hot standby, not the primary")]
    Recovery,
    #[error("Postgres is read-only: `default_transaction_read_only` is on")]
    Setting,
}

/// Connects to a server that takes writes. The error for any other satisfies [`is_read_only`].
pub async fn connect(address: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = address.connect().await?;
    require_writable(&mut connection).await?;
    Ok(connection)
}

/// Fails if the server of this connection takes no writes at the moment.
pub async fn require_writable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let question = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let why = match sqlx::query_as(question).fetch_one(connection).await? {
        (true, _) => ReadOnly::Recovery,
        (false, true) => ReadOnly::Setting,
        (false, false) => return Ok(()),
    };
    // To all callers this is a lost connection: they try another, or report that Postgres is away.
    Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, why)))
}

/// Returns `true` if a server answered that takes no writes.
pub fn is_read_only(error: &sqlx::Error) -> bool {
    let sqlx::Error::Io(error) = error else { return false };
    error.get_ref().is_some_and(|why| why.is::<ReadOnly>())
}

//! Asks whether the store is there, over a connection of its own: one that waits for a place in a pool would
//! take a crowd before it for a silence.

use std::io;
use std::sync::{Mutex, PoisonError};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};

#[derive(Debug)]
pub struct Probe {
    address: PgConnectOptions,
    /// While nobody asks.
    connection: Mutex<Option<PgConnection>>,
}

impl Probe {
    /// Connects when it is first asked.
    pub fn new(address: PgConnectOptions) -> Self {
        Self { address, connection: Mutex::new(None) }
    }

    /// The store's present life, which tells that it is there.
    pub async fn incarnation(&self) -> Result<u32, sqlx::Error> {
        let kept = self.kept().take();
        // It may have broken since it was last used.
        if let Some(connection) = kept
            && let Ok(incarnation) = self.ask(connection).await
        {
            return Ok(incarnation);
        }
        self.ask(self.address.connect().await?).await
    }

    async fn ask(&self, mut connection: PgConnection) -> Result<u32, sqlx::Error> {
        let question = sqlx::query_scalar("SELECT incarnation FROM store");
        let incarnation: i32 = question.fetch_one(&mut connection).await?;
        *self.kept() = Some(connection);
        Ok(incarnation.unsigned_abs())
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<PgConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody is there at all.
pub fn is_refusal(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

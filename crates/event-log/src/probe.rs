//! Asks whether the store is there, over a connection of its own: one that waits for a place in a pool would
//! take a crowd before it for a silence.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;

use crate::writable;

/// Maximum age of the connection. The address may lead to another server by then, and new sessions
/// may have other settings.
const MAX_AGE: Duration = Duration::from_secs(4);

#[derive(Debug)]
pub struct Probe {
    address: PgConnectOptions,
    /// While no question is asked.
    idle: Mutex<Option<Probing>>,
}

/// A connection to a server that takes writes, as of a moment ago.
#[derive(Debug)]
pub struct Probing {
    connection: PgConnection,
    since: Instant,
}

impl Probe {
    /// Connects when it is first asked.
    pub fn new(address: PgConnectOptions) -> Self {
        Self { address, idle: Mutex::new(None) }
    }

    /// Returns a connection to a primary, for one question. Without [`Probe::keep`] it is closed.
    pub async fn connection(&self) -> Result<Probing, sqlx::Error> {
        let idle = self.idle().take();
        // It may have broken since it was last used, or its server may have been demoted.
        if let Some(mut probing) = idle
            && probing.since.elapsed() < MAX_AGE
            && writable::require_writable(&mut probing).await.is_ok()
        {
            return Ok(probing);
        }
        let connection = writable::connect(&self.address).await?;
        Ok(Probing { connection, since: Instant::now() })
    }

    /// Keeps a connection, which has answered, for the next question.
    pub fn keep(&self, probing: Probing) {
        *self.idle() = Some(probing);
    }

    /// Returns the store's incarnation, from a primary.
    pub async fn incarnation(&self) -> Result<u32, sqlx::Error> {
        let mut probing = self.connection().await?;
        let question = sqlx::query_scalar("SELECT incarnation FROM store");
        let incarnation: i32 = question.fetch_one(&mut *probing).await?;
        self.keep(probing);
        Ok(incarnation.unsigned_abs())
    }

    fn idle(&self) -> MutexGuard<'_, Option<Probing>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Probing {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Probing {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

/// Returns `true` if one answer is enough to know that there is no server to use.
pub fn is_refusal(error: &sqlx::Error) -> bool {
    let is_refused = matches!(
        error,
        sqlx::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused
    );
    is_refused || writable::is_read_only(error)
}

//! Asks whether the store is there, over a connection of its own: one that waits for a place in a pool would
//! take a crowd before it for a silence.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::{Partitions, Point, Position};
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use crate::{TokenKey, writable};

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

/// The store as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreState {
    pub incarnation: u32,
    pub token_key: TokenKey,
    /// Last event of every partition, partition by partition.
    pub heads: Vec<Point>,
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

    /// Returns the state of the store, from a primary.
    pub async fn state(&self, partitions: Partitions) -> Result<StoreState, sqlx::Error> {
        let mut probing = self.connection().await?;
        type Row = (i32, Vec<u8>, Option<i64>, Option<Uuid>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT store.incarnation, store.token_key, last.position, last.event_id
             FROM store
             CROSS JOIN generate_series(0, $1 - 1) AS each (partition)
             LEFT JOIN LATERAL (
                 SELECT position, event_id FROM events
                 WHERE events.partition = each.partition
                 ORDER BY position DESC
                 LIMIT 1
             ) AS last ON true
             ORDER BY each.partition",
        )
        .bind(i32::from(partitions.count()))
        .fetch_all(&mut *probing)
        .await?;
        self.keep(probing);
        let (incarnation, key, ..) = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let head = |(_, _, position, event_id): &Row| {
            position.zip(*event_id).map_or(Point::START, |(position, event_id)| Point {
                position: Position::from_i64(position),
                event_id,
            })
        };
        Ok(StoreState {
            incarnation: incarnation.unsigned_abs(),
            token_key: TokenKey::from_bytes(key)?,
            heads: rows.iter().map(head).collect(),
        })
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

//! Loading: folds the stream of one aggregate row by row, in bounded memory, from its snapshot on.
//!
//! The SQL is our own. postgres-es collects a stream in a `Vec` before its first event is seen. Its
//! `get_last_events` writes the sequence into the text of the query, so each sequence is another prepared
//! statement. Its `stream_events` reads from the first event only, and ends like a whole stream when the
//! connection breaks.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use cqrs_es::Aggregate;
use domain::StoredEvent;
use futures::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Postgres, Row as _};
use uuid::Uuid;

use super::snapshots::{Snapshots, is_due};
use super::{LoadError, Loaded};

/// Timeout for one row. A stream may have any length, so a whole load has no timeout.
const ROW_TIMEOUT: Duration = Duration::from_secs(5);

/// A load that has its connection. So no more loads are under way than the pool has connections.
#[derive(Debug)]
pub struct Loading<A> {
    connection: PoolConnection<Postgres>,
    id: String,
    snapshots: Option<Snapshots>,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> Loading<A>
where
    A: Aggregate,
    A::Event: StoredEvent,
{
    /// Waits for a connection, as long as the pool allows.
    pub(super) async fn begin(
        pool: &PgPool,
        id: &str,
        snapshots: Option<Snapshots>,
    ) -> Result<Self, LoadError> {
        let connection = pool.acquire().await.context("waiting for a connection to load a stream");
        let connection = connection.map_err(LoadError::Unavailable)?;
        Ok(Self { connection, id: id.to_owned(), snapshots, aggregate: PhantomData })
    }

    /// Reads the snapshot and the events behind it. On the way it offers snapshots, so that a load that fails
    /// later was not in vain.
    pub async fn fold(self) -> Result<Loaded<A>, LoadError> {
        let Self { mut connection, id, snapshots, .. } = self;
        let began = Instant::now();
        let snapshot = match &snapshots {
            Some(snapshots) => in_time(snapshots.read::<A>(&mut connection, &id)).await?,
            None => None,
        };
        let start = if snapshot.is_some() { "snapshot" } else { "beginning" };
        metrics::counter!("stream_loads_total", "start" => start).increment(1);
        let events_read = metrics::counter!("stream_load_events_total");

        let (aggregate, version) = snapshot.unwrap_or_default();
        let mut loaded = Loaded { id, aggregate, version };
        let mut rows = sqlx::query(
            "SELECT sequence, event_id, event_type, event_version, payload::text
             FROM events
             WHERE aggregate_type = $1 AND aggregate_id = $2 AND sequence > $3
             ORDER BY sequence",
        )
        .bind(A::TYPE)
        .bind(loaded.id.clone())
        .bind(loaded.version.cast_signed())
        .fetch(&mut *connection);
        // Postgres sends all rows at once; what is not read yet waits in the sockets.
        while let Some(row) = in_time(rows.try_next()).await? {
            events_read.increment(1);
            let (version, event_id, event) =
                read::<A>(&row).context("reading a stream").map_err(LoadError::Unreadable)?;
            loaded.aggregate.apply(event);
            if let Some(snapshots) = snapshots.as_ref().filter(|_| is_due(loaded.version, version))
            {
                snapshots.offer(&loaded.id, version, event_id, &loaded.aggregate);
            }
            loaded.version = version;
        }
        metrics::histogram!("stream_load_seconds").record(began.elapsed());
        Ok(loaded)
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LoadError> {
    let answer = tokio::time::timeout(ROW_TIMEOUT, answer).await;
    let answer = answer.context("no row in time").and_then(|answer| Ok(answer?));
    answer.context("loading a stream").map_err(LoadError::Unavailable)
}

/// Returns the sequence of an event, its id, and the event.
fn read<A: Aggregate>(row: &PgRow) -> anyhow::Result<(u64, Uuid, A::Event)>
where
    A::Event: StoredEvent,
{
    // Borrowed from the row: a payload may have a megabyte.
    let event = A::Event::parse(row.try_get(2)?, row.try_get(3)?, row.try_get(4)?)?;
    Ok((row.try_get::<i64, _>(0)?.unsigned_abs(), row.try_get(1)?, event))
}

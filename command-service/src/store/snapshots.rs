//! Snapshots: the state of an aggregate at some version, stored so that loading it need not fold its whole stream.
//!
//! A snapshot is written behind the append: it never delays a response, and losing one costs time only. A load
//! believes it only if it has the shape of this program and its last event is in the stream.
//!
//! The snapshots of cqrs-es are not used. Its snapshot store applies events twice to the state that it saves,
//! and reports a conflict after it has committed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use cqrs_es::Aggregate;
use service_runtime::progress;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Number of events between two snapshots of an aggregate.
const EVENTS_BETWEEN: u64 = 100;
/// Maximum number of snapshots that wait to be written; each takes about half a KiB.
const MAX_WAITING: usize = 4096;
/// Interval between two writes. An aggregate that changes faster is written once for each.
const WRITE_INTERVAL: Duration = Duration::from_millis(100);
/// Timeout for one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// The snapshots of one kind of aggregate. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct Snapshots {
    pub(super) queue: SnapshotQueue,
    /// The shape that this program reads and writes.
    pub(super) shape: &'static str,
}

/// Snapshots that wait to be written: the latest of each aggregate. Clones share it.
#[derive(Debug, Clone)]
pub struct SnapshotQueue {
    waiting: Arc<Waiting>,
}

/// The task that writes them.
#[derive(Debug)]
pub struct SnapshotTask {
    pool: PgPool,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By type and id. The order lets two processes lock rows alike.
    snapshots: Mutex<BTreeMap<(&'static str, String), Snapshot>>,
    offered: Notify,
}

#[derive(Debug)]
struct Snapshot {
    version: u64,
    event_id: Uuid,
    shape: &'static str,
    state: String,
}

/// Returns an empty queue and the task that writes what is put into it.
pub fn snapshots(pool: PgPool) -> (SnapshotQueue, SnapshotTask) {
    let waiting = Arc::<Waiting>::default();
    (SnapshotQueue { waiting: Arc::clone(&waiting) }, SnapshotTask { pool, waiting })
}

/// Returns `true` if a snapshot is due after events have taken an aggregate from one version to another.
pub(super) fn is_due(before: u64, after: u64) -> bool {
    before / EVENTS_BETWEEN != after / EVENTS_BETWEEN
}

impl Snapshots {
    /// Queues the state of an aggregate after the event `event_id`, its last. Without room it is dropped.
    pub(super) fn offer<A: Aggregate>(
        &self,
        id: &str,
        version: u64,
        event_id: Uuid,
        aggregate: &A,
    ) {
        let state = match serde_json::to_string(aggregate) {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(error = %error, "an aggregate cannot be serialised: {error}");
                return;
            }
        };
        let snapshot = Snapshot { version, event_id, shape: self.shape, state };
        if self.queue.waiting.put((A::TYPE, id.to_owned()), snapshot) {
            self.queue.waiting.offered.notify_one();
        } else {
            metrics::counter!("snapshots_total", "outcome" => "dropped").increment(1);
        }
    }

    /// Reads the snapshot of an aggregate, with its version. Returns `None` if there is none to believe.
    pub(super) async fn read<A: Aggregate>(
        &self,
        connection: &mut PgConnection,
        id: &str,
    ) -> Result<Option<(A, u64)>, sqlx::Error> {
        let row: Option<(i64, String)> = sqlx::query_as(
            "SELECT snapshots.version, snapshots.state::text
             FROM aggregate_snapshots AS snapshots
             JOIN events ON events.aggregate_type = snapshots.aggregate_type
                        AND events.aggregate_id = snapshots.aggregate_id
                        AND events.sequence = snapshots.version
                        AND events.event_id = snapshots.event_id
             WHERE snapshots.aggregate_type = $1 AND snapshots.aggregate_id = $2 AND snapshots.shape = $3",
        )
        .bind(A::TYPE)
        .bind(id)
        .bind(self.shape)
        .fetch_optional(connection)
        .await?;
        Ok(row.and_then(|(version, state)| match serde_json::from_str(&state) {
            Ok(aggregate) => Some((aggregate, version.unsigned_abs())),
            Err(error) => {
                tracing::warn!(aggregate.id = id, error = %error, "snapshot unreadable, ignored");
                None
            }
        }))
    }
}

impl Waiting {
    /// Returns `false` if there is no room.
    fn put(&self, key: (&'static str, String), snapshot: Snapshot) -> bool {
        let mut snapshots = self.lock();
        let full = snapshots.len() >= MAX_WAITING;
        match snapshots.entry(key) {
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(entry) => {
                entry.insert(snapshot);
            }
            // A load that began earlier may offer an earlier one.
            Entry::Occupied(entry) if entry.get().version > snapshot.version => {}
            Entry::Occupied(mut entry) => {
                entry.insert(snapshot);
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, String), Snapshot>> {
        // The map is whole even if a thread panicked while holding it.
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SnapshotTask {
    /// Writes snapshots until it is told to stop, and then those that wait.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let offered = stop.run_until_cancelled(self.waiting.offered.notified());
            let stopped = progress::idle(offered).await.is_none();
            let snapshots = std::mem::take(&mut *self.waiting.lock());
            let count = snapshots.len() as u64;
            let outcome = match self.write(snapshots).await {
                Ok(()) => "written",
                Err(error) => {
                    tracing::warn!("snapshots lost: {error:#}");
                    "failed"
                }
            };
            metrics::counter!("snapshots_total", "outcome" => outcome).increment(count);
            if stopped {
                return Ok(());
            }
            let pause = tokio::time::sleep(WRITE_INTERVAL);
            progress::idle(stop.run_until_cancelled(pause)).await;
        }
    }

    async fn write(
        &self,
        snapshots: BTreeMap<(&'static str, String), Snapshot>,
    ) -> anyhow::Result<()> {
        if snapshots.is_empty() {
            return Ok(());
        }
        let (mut types, mut ids, mut versions) = (vec![], vec![], vec![]);
        let (mut event_ids, mut shapes, mut states) = (vec![], vec![], vec![]);
        for ((aggregate_type, id), snapshot) in snapshots {
            types.push(aggregate_type);
            ids.push(id);
            versions.push(snapshot.version.cast_signed());
            event_ids.push(snapshot.event_id);
            shapes.push(snapshot.shape);
            states.push(snapshot.state);
        }
        // The later write wins, even with a lower version: a stored one of a higher version may be void.
        let write = sqlx::query(
            "INSERT INTO aggregate_snapshots (aggregate_type, aggregate_id, version, event_id, shape, state)
             SELECT type, id, version, event_id, shape, state::jsonb
             FROM unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::text[], $6::text[])
                  AS given (type, id, version, event_id, shape, state)
             ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE
             SET version = excluded.version, event_id = excluded.event_id,
                 shape = excluded.shape, state = excluded.state",
        )
        .bind(types)
        .bind(ids)
        .bind(versions)
        .bind(event_ids)
        .bind(shapes)
        .bind(states)
        .execute(&self.pool);
        tokio::time::timeout(WRITE_TIMEOUT, write).await.context("took too long")??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_due_whenever_a_hundred_events_are_full() {
        for (before, after, due) in
            [(0, 99, false), (98, 101, true), (99, 100, true), (100, 199, false)]
        {
            assert_eq!(is_due(before, after), due, "{before} to {after}");
        }
    }

    #[test]
    fn what_waits_is_the_latest_of_each_aggregate_and_bounded() {
        let waiting = Waiting::default();
        for version in [1, 3, 2] {
            assert!(waiting.put(("post", "a".to_owned()), snapshot(version)));
        }
        assert_eq!(waiting.lock()[&("post", "a".to_owned())].version, 3);
        for number in 1..MAX_WAITING {
            assert!(waiting.put(("post", number.to_string()), snapshot(1)));
        }
        assert!(!waiting.put(("post", "b".to_owned()), snapshot(1)));
        assert!(waiting.put(("post", "a".to_owned()), snapshot(4)));
        assert_eq!(waiting.lock().len(), MAX_WAITING);
    }

    fn snapshot(version: u64) -> Snapshot {
        Snapshot { version, event_id: Uuid::nil(), shape: "", state: String::new() }
    }
}

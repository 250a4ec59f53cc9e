//! The yardsticks for a rebuild: the log read and nothing done with it, by as many readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::ensure;
use event_log::EventLog;
use sqlx::PgPool;
use sqlx::postgres::PgPoolCopyExt as _;
use tokio::task::JoinSet;

use crate::system::System;

/// Of so many events each, as a rebuild divides the log unless told otherwise.
const PART_EVENTS: u64 = 5000;

/// Reads all events page by page, through the same driver and in the same parts as a rebuild, and returns how
/// many it read in a second.
pub(crate) async fn scanned_per_second(system: &System, readers: usize) -> anyhow::Result<f64> {
    let head = system.log.head().await?;
    let began = Instant::now();
    let parts = u32::try_from((head.0 / PART_EVENTS).max(1))?;
    let ranges = Arc::new(system.log.ranges(head, parts).await?);
    let next = Arc::<AtomicUsize>::default();
    let mut reading = JoinSet::new();
    for _ in 0..readers {
        let (log, ranges, next) = (system.log.clone(), Arc::clone(&ranges), Arc::clone(&next));
        reading.spawn(async move {
            let mut events = 0;
            while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut scan = log.scan(range, head);
                while scan.next().await?.is_some() {
                    events += 1;
                }
            }
            anyhow::Ok(events)
        });
    }
    let mut events = 0;
    while let Some(read) = reading.join_next().await {
        events += read??;
    }
    ensure!(events == head.0, "{events} of {} events were read", head.0);
    Ok(events as f64 / began.elapsed().as_secs_f64())
}

/// Has Postgres send all payloads as they lie there, with `COPY`, and returns how many events that are in a second.
pub(crate) async fn copied_per_second(system: &System, readers: u64) -> anyhow::Result<f64> {
    let head = heads(&system.log).await?;
    let began = Instant::now();
    let mut reading = JoinSet::new();
    for reader in 0..readers {
        let (above, up_to) = (head * reader / readers, head * (reader + 1) / readers);
        reading.spawn(copy(system.store.pool.clone(), above, up_to));
    }
    while let Some(read) = reading.join_next().await {
        read??;
    }
    Ok(head as f64 / began.elapsed().as_secs_f64())
}

async fn heads(log: &EventLog) -> anyhow::Result<u64> {
    Ok(log.head().await?.0)
}

async fn copy(pool: PgPool, above: u64, up_to: u64) -> anyhow::Result<()> {
    use futures::TryStreamExt as _;
    let copy = format!(
        "COPY (SELECT aggregate_id, sequence, payload FROM events WHERE position > {above} AND position <= {up_to}) \
         TO STDOUT (FORMAT binary)"
    );
    let mut bytes = pool.copy_out_raw(&copy).await?;
    while bytes.try_next().await?.is_some() {}
    Ok(())
}

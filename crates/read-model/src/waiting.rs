//! Waiting until the views have reached a position, within a bulkhead.
//!
//! One task polls the watermarks for all requests that wait, of just the partitions that they wait for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Partition, Position};
use tokio::sync::{Notify, Semaphore, watch};

use crate::{Views, Watermark};

/// Interval between two polls of the watermarks.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Maximum time between two reports of the task, by which it differs from one that hangs.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

type Marks = BTreeMap<Partition, Watermark>;

/// Place to wait for positions. Clones wait together.
#[derive(Debug, Clone)]
pub struct Waiting {
    seen: watch::Receiver<Marks>,
    waiters: Arc<Waiters>,
}

/// Polls the watermarks.
#[derive(Debug)]
pub struct WatchTask {
    views: Views,
    seen: watch::Sender<Marks>,
    waiters: Arc<Waiters>,
}

#[derive(Debug)]
struct Waiters {
    /// How many requests wait for each partition.
    wanted: Mutex<BTreeMap<Partition, usize>>,
    came: Notify,
    room: Semaphore,
}

/// Returns the place to wait, for so many requests at the same time, and the task behind it.
pub fn waiting(views: Views, most: usize) -> (Waiting, WatchTask) {
    let (sender, seen) = watch::channel(Marks::new());
    let waiters =
        Waiters { wanted: Mutex::default(), came: Notify::new(), room: Semaphore::new(most) };
    let waiters = Arc::new(waiters);
    let waiting = Waiting { seen, waiters: Arc::clone(&waiters) };
    (waiting, WatchTask { views, seen: sender, waiters })
}

impl Waiting {
    /// Waits until the views have reached all these positions, given in this incarnation of the store. Returns
    /// `false` after that time, and at once if too many requests wait already.
    pub async fn reached(
        &self,
        incarnation: u32,
        positions: &[(Partition, Position)],
        limit: Duration,
    ) -> bool {
        let Ok(_room) = self.waiters.room.try_acquire() else { return false };
        let _want = Want::new(&self.waiters, positions);
        let mut seen = self.seen.clone();
        let has_reached = |marks: &Marks, (partition, position): &(Partition, Position)| {
            let mark = marks.get(partition).filter(|mark| mark.incarnation >= incarnation);
            mark.is_some_and(|mark| mark.point.position >= *position)
        };
        let reached = seen.wait_for(|marks| positions.iter().all(|pair| has_reached(marks, pair)));
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }
}

/// Has partitions polled until it is dropped.
struct Want<'a> {
    waiters: &'a Waiters,
    positions: &'a [(Partition, Position)],
}

impl<'a> Want<'a> {
    fn new(waiters: &'a Waiters, positions: &'a [(Partition, Position)]) -> Self {
        let mut wanted = waiters.lock();
        for (partition, _) in positions {
            *wanted.entry(*partition).or_default() += 1;
        }
        drop(wanted);
        waiters.came.notify_one();
        Self { waiters, positions }
    }
}

impl Drop for Want<'_> {
    fn drop(&mut self) {
        let mut wanted = self.waiters.lock();
        for (partition, _) in self.positions {
            if let Some(count) = wanted.get_mut(partition) {
                *count -= 1;
                if *count == 0 {
                    wanted.remove(partition);
                }
            }
        }
    }
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Partition, usize>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchTask {
    /// Polls until it is dropped, and only while a request waits. Calls `report` at least once a second and after
    /// each poll.
    pub async fn run(self, report: impl Fn()) {
        loop {
            report();
            let wanted: Vec<_> = self.waiters.lock().keys().copied().collect();
            if wanted.is_empty() {
                // What was seen before this pause says nothing of the views as they are.
                self.seen.send_replace(Marks::new());
                let _ = tokio::time::timeout(REPORT_INTERVAL, self.waiters.came.notified()).await;
                continue;
            }
            // Requests that wait while Redis does not answer wait in vain, which is what they are told.
            let found = self.views.watermarks_of(&wanted).await;
            let marks = wanted.into_iter().zip(found);
            let marks = marks.filter_map(|(partition, mark)| Some((partition, mark.ok()??)));
            self.seen.send_replace(marks.collect());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

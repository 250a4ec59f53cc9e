//! Waiting until the views have reached a position.
//!
//! One task looks at the watermarks for all who wait, and only while somebody does.

use std::sync::Arc;
use std::time::Duration;

use domain::{Partition, Position};
use tokio::sync::{Notify, Semaphore, watch};

use crate::{Views, Watermark};

/// How many may wait at the same time. Others are answered at once.
const MAX_WAITERS: usize = 10_000;
/// How often the watermarks are looked at.
const PAUSE: Duration = Duration::from_millis(5);
/// Maximum time between two reports of the task, by which it differs from one that hangs.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Where those wait who need a position. Clones wait together.
#[derive(Debug, Clone)]
pub struct Waiting {
    seen: watch::Receiver<Vec<Option<Watermark>>>,
    somebody: Arc<Notify>,
    room: Arc<Semaphore>,
}

/// Looks at the watermarks.
#[derive(Debug)]
pub struct WatchTask {
    views: Views,
    seen: watch::Sender<Vec<Option<Watermark>>>,
    somebody: Arc<Notify>,
    room: Arc<Semaphore>,
}

/// Where to wait, and the task behind it.
pub fn waiting(views: Views) -> (Waiting, WatchTask) {
    let (sender, seen) = watch::channel(Vec::new());
    let (somebody, room) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(MAX_WAITERS)));
    let waiting = Waiting { seen, somebody: Arc::clone(&somebody), room: Arc::clone(&room) };
    (waiting, WatchTask { views, seen: sender, somebody, room })
}

impl Waiting {
    /// Waits until the views of a partition have reached a position given in this life of the store; `false`
    /// after that time, or if too many are waiting already.
    pub async fn reached(
        &self,
        incarnation: u32,
        partition: Partition,
        position: Position,
        limit: Duration,
    ) -> bool {
        let Ok(_room) = self.room.try_acquire() else { return false };
        self.somebody.notify_one();
        let mut seen = self.seen.clone();
        let reached = seen.wait_for(|marks| {
            let mark = marks.get(usize::from(partition.0)).and_then(Option::as_ref);
            let theirs = mark.filter(|mark| mark.incarnation >= incarnation);
            theirs.is_some_and(|mark| mark.point.position >= position)
        });
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }
}

impl WatchTask {
    /// Looks for as long as it is let, and calls `report` at least once a second and after each look.
    pub async fn run(self, report: impl Fn()) {
        loop {
            report();
            if self.room.available_permits() == MAX_WAITERS {
                // What was seen before this pause says nothing of the views as they are.
                self.seen.send_replace(Vec::new());
                let waiter = self.somebody.notified();
                if tokio::time::timeout(REPORT_INTERVAL, waiter).await.is_err() {
                    continue;
                }
            }
            // Those who wait while Redis does not answer wait in vain, which is what they are told.
            if let Ok(marks) = self.views.watermarks().await {
                self.seen.send_replace(marks);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

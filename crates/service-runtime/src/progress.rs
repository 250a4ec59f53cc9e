//! Watchdog: notices a task that hangs.
//!
//! Each task of [`Tasks`](crate::Tasks) reports progress with [`tick`], and marks a wait that may take
//! arbitrarily long with [`idle`]. A task that does neither for [`STALL_LIMIT`] makes its process not
//! ready, under the check `tasks`. A task that never reports does so, too: no task is left out by
//! mistake.
//!
//! A bounded call needs no mark: its timeout lets the task report again. Code outside of a task, such as
//! an operator's command, may call both; then nothing is reported.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum time between two reports of a task. More than a machine stands still for, and little enough
/// to be known within 10 s.
pub const STALL_LIMIT: Duration = Duration::from_secs(8);
/// Time after which a process whose runtime does not run its tasks is not alive.
pub(crate) const DEAD_AFTER: Duration = Duration::from_secs(30);
/// Interval of the reports of an idle task: they prove that the runtime still runs it.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

tokio::task_local! {
    static CURRENT: Arc<Reports>;
}

/// Reports that the current task makes progress.
pub fn tick() {
    // Outside of a task there is no watchdog.
    let _ = CURRENT.try_with(|reports| reports.tick());
}

/// Waits for something that may take arbitrarily long, such as work that arrives. Not for work itself:
/// the wait counts as progress.
pub async fn idle<T>(wait: impl Future<Output = T>) -> T {
    let mut wait = pin!(wait);
    loop {
        tick();
        if let Ok(done) = tokio::time::timeout(IDLE_INTERVAL, &mut wait).await {
            tick();
            return done;
        }
    }
}

/// The last report of one task.
#[derive(Debug)]
struct Reports {
    name: &'static str,
    begun: Instant,
    /// In milliseconds since `begun`.
    last: AtomicU64,
}

impl Reports {
    fn tick(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn silence_at(&self, now: Instant) -> Duration {
        let last = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed));
        now.saturating_duration_since(last)
    }
}

/// The tasks of a process that are watched. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchdog {
    tasks: Arc<Mutex<Vec<Arc<Reports>>>>,
}

/// A task that has not reported for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stalled {
    pub(crate) task: &'static str,
    pub(crate) silence: Duration,
}

impl Watchdog {
    /// Runs a task, and watches it from now on until it ends or is dropped.
    pub(crate) fn watch<F: Future>(
        &self,
        name: &'static str,
        task: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        let reports = Arc::new(Reports { name, begun: Instant::now(), last: AtomicU64::new(0) });
        self.tasks().push(Arc::clone(&reports));
        let watched = Watched { watchdog: self.clone(), reports: Arc::clone(&reports) };
        CURRENT.scope(reports, async move {
            let _watched = watched;
            task.await
        })
    }

    /// Returns `true` unless no task is watched.
    pub(crate) fn watches(&self) -> bool {
        !self.tasks().is_empty()
    }

    /// The tasks that hang at the moment, by name.
    pub(crate) fn stalled(&self) -> Vec<Stalled> {
        self.stalled_at(Instant::now(), STALL_LIMIT)
    }

    /// Returns `false` if the runtime has not run one of its tasks for so long that it will not recover.
    pub(crate) fn is_alive(&self) -> bool {
        let dead = self.stalled_at(Instant::now(), DEAD_AFTER);
        dead.iter().all(|stalled| stalled.task != HEARTBEAT)
    }

    fn stalled_at(&self, now: Instant, limit: Duration) -> Vec<Stalled> {
        let mut stalled: Vec<_> = self
            .tasks()
            .iter()
            .map(|task| Stalled { task: task.name, silence: task.silence_at(now) })
            .filter(|stalled| stalled.silence >= limit)
            .collect();
        stalled.sort_unstable_by_key(|stalled| stalled.task);
        stalled
    }

    fn tasks(&self) -> MutexGuard<'_, Vec<Arc<Reports>>> {
        // A list of plain values is whole even after a panic.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the watch when it is dropped.
struct Watched {
    watchdog: Watchdog,
    reports: Arc<Reports>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watchdog.tasks().retain(|task| !Arc::ptr_eq(task, &self.reports));
    }
}

/// Name of the task that only reports: if it hangs, the runtime runs no task.
pub(crate) const HEARTBEAT: &str = "runtime";

/// Reports until it is dropped.
pub(crate) async fn heartbeat() {
    idle(std::future::pending::<()>()).await;
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn stalled_in(watchdog: &Watchdog, seconds: u64) -> Vec<&'static str> {
        let then = Instant::now() + Duration::from_secs(seconds);
        watchdog.stalled_at(then, STALL_LIMIT).iter().map(|stalled| stalled.task).collect()
    }

    #[tokio::test]
    async fn a_task_that_does_not_report_is_named() {
        let watchdog = Watchdog::default();
        let hanging = tokio::spawn(watchdog.watch("relay", pending::<()>()));
        tokio::task::yield_now().await;
        assert_eq!(stalled_in(&watchdog, 4), [""; 0], "a machine may stand still for a while");
        assert_eq!(stalled_in(&watchdog, 10), ["relay"]);
        hanging.abort();
        assert!(hanging.await.unwrap_err().is_cancelled());
        assert!(!watchdog.watches());
    }

    #[tokio::test]
    async fn a_task_reports_with_each_step_and_while_it_is_idle() {
        let watchdog = Watchdog::default();
        let step = tokio::sync::Notify::new();
        let last = || watchdog.tasks()[0].last.load(Ordering::Relaxed);
        let reports_again = async || {
            let before = last();
            tokio::time::timeout(Duration::from_secs(45), async {
                while last() == before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await
            .expect("it does not report");
        };
        let task = watchdog.watch("relay", async {
            step.notified().await;
            tick();
            tokio::time::sleep(Duration::from_millis(50)).await;
            idle(step.notified()).await;
        });
        let story = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(last(), 0);
            step.notify_one();
            for _step_then_idle in 0..3 {
                reports_again().await;
            }
            step.notify_one();
        };
        tokio::join!(task, story);
        assert!(!watchdog.watches());
    }

    #[tokio::test]
    async fn code_outside_of_a_task_reports_nothing() {
        tick();
        assert_eq!(idle(async { 7 }).await, 7);
    }
}

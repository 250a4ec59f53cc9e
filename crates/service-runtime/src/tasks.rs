//! The tasks that make up a process: how they start together, and how they end.
//!
//! There are two stages, because order matters when stopping. Most tasks are `work`: they are told to
//! stop first. What they need until their end (whoever writes for them, the ops port) is spawned with
//! [`Tasks::spawn_last`] and is told once the work is done.

use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::progress::{self, Watchdog};
use crate::{Check, Readiness};

/// How long stopping may take.
#[derive(Debug, Clone, Copy, Args)]
pub struct DrainArgs {
    /// How many seconds work in hand has to finish once the process is told to stop
    #[arg(
        long,
        env = "INKSTREAM_DRAIN_SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600),
    )]
    pub drain_seconds: u64,

    /// Time for which a stopping process still takes new work after its readiness fails, in seconds, so that load
    /// balancers notice first
    #[arg(
        long,
        env = "INKSTREAM_STOP_DELAY_SECONDS",
        default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=300),
    )]
    pub stop_delay_seconds: u64,
}

impl DrainArgs {
    pub fn limit(self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The part of it that requests in hand get; the rest is for what ends after the last of them.
    pub fn limit_for_requests(self) -> Duration {
        self.limit().mul_f64(0.9)
    }
}

/// All tasks of a process. If one ends, all do. Each has to report its [progress](crate::progress).
#[derive(Debug)]
pub struct Tasks {
    work: Stage,
    last: Stage,
    drain_limit: Duration,
    stop_delay: Duration,
    running: Check,
    /// Ends when it is dropped.
    _heartbeat: AbortOnDropHandle<()>,
}

impl Tasks {
    /// Adds a check `running` to `readiness`, which ends when stopping begins.
    pub fn new(drain: DrainArgs, readiness: &Readiness) -> Self {
        let running = readiness.check("running");
        running.not_ready("starting");
        let watchdog = readiness.watchdog();
        let heartbeat = watchdog.watch(progress::HEARTBEAT, progress::heartbeat());
        let stage = || Stage { watchdog: watchdog.clone(), ..Stage::default() };
        Self {
            work: stage(),
            last: stage(),
            drain_limit: drain.limit(),
            stop_delay: Duration::from_secs(drain.stop_delay_seconds),
            running,
            _heartbeat: AbortOnDropHandle::new(tokio::spawn(heartbeat)),
        }
    }

    /// Starts a task that ends of itself, its work done, once its token is cancelled.
    pub fn spawn<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.work.spawn(name, task);
    }

    /// The same, but the token is cancelled only after all tasks of [`Tasks::spawn`] have ended.
    pub fn spawn_last<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.last.spawn(name, task);
    }

    /// Runs until `shutdown` completes or a task ends, then lets work in hand finish.
    pub async fn run_until(mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.running.ready();
        let mut outcome = self.next_end(shutdown).await;
        self.running.not_ready("stopping");
        if outcome.is_ok() && !self.stop_delay.is_zero() {
            outcome = self.next_end(tokio::time::sleep(self.stop_delay)).await;
        }
        let drained = timeout(self.drain_limit, async {
            let worked = self.work.drain().await;
            worked.and(self.last.drain().await)
        });
        let drained = drained.await.unwrap_or_else(|_elapsed| {
            let names = [self.work.names(), self.last.names()].concat().join(", ");
            Err(anyhow!("work in hand did not finish in time: {names}"))
        });
        outcome.and(drained)
    }

    /// Waits for a signal, or for the first task that ends by itself.
    async fn next_end(&mut self, signal: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            () = pin!(signal) => Ok(()),
            // Half a service looks healthy and is not. If one task ends, all do, and what started
            // the process starts it again.
            Some(ended) = self.work.next() => Err(gave_up(ended)),
            Some(ended) = self.last.next() => Err(gave_up(ended)),
        }
    }
}

type Ended = (&'static str, anyhow::Result<()>);

fn gave_up((name, ended): Ended) -> anyhow::Error {
    match ended {
        Ok(()) => anyhow!("the task `{name}` ended before it was told to"),
        Err(error) => error.context(format!("the task `{name}` gave up")),
    }
}

/// Tasks that are told to stop together.
#[derive(Debug, Default)]
struct Stage {
    tasks: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
    stop: CancellationToken,
    watchdog: Watchdog,
}

impl Stage {
    fn spawn<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let handle = self.tasks.spawn(self.watchdog.watch(name, task(self.stop.clone())));
        self.names.insert(handle.id(), name);
    }

    /// The next task to end, or `None` when there is none left.
    async fn next(&mut self) -> Option<Ended> {
        let (id, ended) = match self.tasks.join_next_with_id().await? {
            Ok((id, ended)) => (id, ended),
            Err(error) => (error.id(), Err(panicked(error))),
        };
        Some((self.names.remove(&id).unwrap_or("unnamed"), ended))
    }

    /// Tells all to stop and waits for them; all of them, even if one fails.
    async fn drain(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let mut outcome = Ok(());
        while let Some((name, ended)) = self.next().await {
            let ended = ended.with_context(|| format!("the task `{name}` failed while stopping"));
            outcome = outcome.and(ended);
        }
        outcome
    }

    fn names(&self) -> Vec<&'static str> {
        self.names.values().copied().collect()
    }
}

fn panicked(error: JoinError) -> anyhow::Error {
    anyhow::Error::new(error).context("it panicked")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::*;

    fn tasks() -> Tasks {
        Tasks::new(DrainArgs { drain_seconds: 60, stop_delay_seconds: 0 }, &Readiness::new())
    }

    async fn until_stopped(stop: CancellationToken) -> anyhow::Result<()> {
        stop.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn work_ends_before_what_it_needs() {
        let order = Arc::new(Mutex::new(vec![]));
        let note = |name: &'static str, takes| {
            let order = order.clone();
            async move |stop: CancellationToken| {
                stop.cancelled().await;
                tokio::time::sleep(Duration::from_millis(takes)).await;
                order.lock().unwrap().push(name);
                Ok(())
            }
        };
        let mut tasks = tasks();
        tasks.spawn_last("writer", note("writer", 0));
        tasks.spawn("http", note("http", 50));
        tasks.run_until(async {}).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["http", "writer"]);
    }

    #[tokio::test]
    async fn one_task_that_fails_ends_all_and_is_named() {
        let mut tasks = tasks();
        tasks.spawn("http", until_stopped);
        tasks.spawn("relay", async |_| anyhow::bail!("the lease is lost"));
        let error = tasks.run_until(std::future::pending()).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "the task `relay` gave up: the lease is lost");
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let mut tasks = tasks();
        tasks.spawn_last("writer", async |_| panic!("no"));
        let error = tasks.run_until(std::future::pending()).await.unwrap_err();
        assert!(format!("{error:#}").starts_with("the task `writer` gave up: it panicked"));
    }

    #[tokio::test]
    async fn work_that_does_not_finish_in_time_is_named() {
        let mut tasks =
            Tasks::new(DrainArgs { drain_seconds: 1, stop_delay_seconds: 0 }, &Readiness::new());
        tasks.spawn("relay", async |_| std::future::pending().await);
        let error = tasks.run_until(async {}).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "work in hand did not finish in time: relay");
    }

    #[tokio::test]
    async fn a_process_that_stops_is_not_ready() {
        let readiness = Readiness::new();
        let mut tasks =
            Tasks::new(DrainArgs { drain_seconds: 60, stop_delay_seconds: 0 }, &readiness);
        let (seen, begun) = (readiness.clone(), Arc::new(Notify::new()));
        let begins = Arc::clone(&begun);
        tasks.spawn("http", async move |stop: CancellationToken| {
            assert!(seen.is_ready());
            begins.notify_one();
            stop.cancelled().await;
            assert!(!seen.is_ready());
            Ok(())
        });
        tasks.run_until(begun.notified()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_stops_still_takes_work_for_a_while() {
        let readiness = Readiness::new();
        let drain = DrainArgs { drain_seconds: 60, stop_delay_seconds: 5 };
        let mut tasks = Tasks::new(drain, &readiness);
        let stopped = Arc::new(Mutex::new(None));
        let begun = tokio::time::Instant::now();
        let notes = stopped.clone();
        tasks.spawn("http", async move |stop: CancellationToken| {
            stop.cancelled().await;
            *notes.lock().unwrap() = Some(begun.elapsed());
            Ok(())
        });
        let running = tokio::spawn(tasks.run_until(tokio::time::sleep(Duration::from_secs(1))));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!readiness.is_ready());
        assert_eq!(*stopped.lock().unwrap(), None, "no work is taken any more");
        running.await.unwrap().unwrap();
        assert_eq!(stopped.lock().unwrap().unwrap().as_secs(), 6);
    }

    #[tokio::test]
    async fn a_task_that_fails_while_a_process_still_takes_work_ends_it() {
        let drain = DrainArgs { drain_seconds: 60, stop_delay_seconds: 300 };
        let mut tasks = Tasks::new(drain, &Readiness::new());
        let (fail, failing) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("relay", async |_| {
            let _ = failing.await;
            anyhow::bail!("the lease is lost")
        });
        let error = tasks.run_until(async move { drop(fail) }).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "the task `relay` gave up: the lease is lost");
    }
}

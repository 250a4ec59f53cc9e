//! How far a long work has come: a bar where somebody watches, a line now and then elsewhere, and numbers for
//! machines.

use std::io::{IsTerminal as _, stderr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::metrics;

/// How often a line is written where there is no bar.
const LINE: Duration = Duration::from_secs(5);

/// The progress of one work, counted in events.
#[derive(Debug)]
pub(crate) struct Progress {
    work: &'static str,
    total: AtomicU64,
    parts: AtomicU64,
    parts_done: AtomicU64,
    done: AtomicU64,
    /// Whether it is, how many parts have been done.
    is_known: AtomicBool,
    /// What had been done before us says nothing of how fast we are.
    begun: Mutex<(Instant, u64)>,
    said: Mutex<Option<Instant>>,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(work: &'static str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{msg} {wide_bar} {percent:>3} %  {human_pos} of {human_len} events, {per_sec}, {eta} left",
            );
            let bar = ProgressBar::new(0).with_message(work);
            style.map(|style| bar.clone().with_style(style)).unwrap_or(bar)
        });
        Self {
            work,
            total: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            parts_done: AtomicU64::new(0),
            done: AtomicU64::new(0),
            is_known: AtomicBool::new(false),
            begun: Mutex::new((Instant::now(), 0)),
            said: Mutex::new(None),
            bar,
        }
    }

    /// There are so many events in all, in so many parts.
    pub(crate) fn expect(&self, total: u64, parts: usize) {
        self.total.store(total, Ordering::Relaxed);
        self.parts.store(parts as u64, Ordering::Relaxed);
        ::metrics::gauge!(metrics::REBUILD_EXPECTED, "work" => self.work).set(total as f64);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// So many parts have been done before, by whomever.
    pub(crate) fn stands_at(&self, parts_done: usize) {
        let (parts, total) =
            (self.parts.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let done = u128::from(total) * parts_done as u128 / u128::from(parts.max(1));
        let done = u64::try_from(done).unwrap_or(total);
        self.parts_done.store(parts_done as u64, Ordering::Relaxed);
        self.begin_at(done);
        self.is_known.store(true, Ordering::Relaxed);
    }

    fn begin_at(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), done);
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.reset_eta();
        }
        self.tell();
    }

    pub(crate) fn add(&self, events: u64) {
        self.done.fetch_add(events, Ordering::Relaxed);
        self.tell();
    }

    pub(crate) fn part(&self) {
        self.parts_done.fetch_add(1, Ordering::Relaxed);
    }

    /// So many events have been done, as is seen from outside.
    pub(crate) fn observe(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.tell();
    }

    /// Parts and events that are done, once it is known what had been done before.
    pub(crate) fn done(&self) -> Option<(u32, u64)> {
        let parts = u32::try_from(self.parts_done.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let is_known = self.is_known.load(Ordering::Relaxed);
        is_known.then(|| (parts, self.done.load(Ordering::Relaxed)))
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        ::metrics::gauge!(metrics::REBUILD_REMAINING, "work" => self.work).set(0.0);
    }

    fn tell(&self) {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let (begun, before) = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        // Before anything has been done, nobody knows how long it takes.
        let rate = (done > before).then(|| {
            let rate = (done - before) as f64 / begun.elapsed().as_secs_f64().max(0.001);
            (rate, total.saturating_sub(done) as f64 / rate)
        });
        ::metrics::gauge!(metrics::REBUILD_DONE, "work" => self.work).set(done as f64);
        if let Some((_, remaining)) = rate {
            ::metrics::gauge!(metrics::REBUILD_REMAINING, "work" => self.work).set(remaining);
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_none_or(|said| said.elapsed() >= LINE) {
            *said = Some(Instant::now());
            let percent = 100.0 * done as f64 / total.max(1) as f64;
            let work = self.work;
            let rate = rate.map_or_else(String::new, |(rate, remaining)| {
                format!(", {rate:.0} in a second; {remaining:.0} s remain")
            });
            tracing::info!(
                done,
                total,
                "The {work} has done {done} of {total} events ({percent:.0} %){rate}"
            );
        }
    }
}

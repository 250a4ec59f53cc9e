//! Partitions that stand still because of an event that cannot be folded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{Partition, Position};
use service_runtime::Check;

use crate::metrics;

/// What stands still, and why. Clones share it. It ends with the process, since a program that can read the
/// event goes on where this one stopped, or with the views it was said of.
#[derive(Debug, Clone)]
pub struct Halted {
    partitions: Arc<Mutex<BTreeMap<Partition, String>>>,
    check: Check,
}

impl Halted {
    /// Tells `check` whether anything stands still.
    pub fn new(check: Check) -> Self {
        check.ready();
        Self { partitions: Arc::default(), check }
    }

    pub fn contains(&self, partition: Partition) -> bool {
        self.lock().contains_key(&partition)
    }

    /// Stops a partition before an event.
    pub(crate) fn halt(&self, partition: Partition, at: Position, error: impl fmt::Display) {
        let why = format!("partition {partition} stopped before position {at}: {error}");
        let mut partitions = self.lock();
        if partitions.insert(partition, why.clone()).is_none() {
            tracing::error!(partition = %partition, position = %at, error = %error, "{why}");
        }
        self.tell(&partitions);
    }

    /// Lets a partition go on.
    pub(crate) fn release(&self, partition: Partition) {
        let mut partitions = self.lock();
        if partitions.remove(&partition).is_some() {
            self.tell(&partitions);
        }
    }

    fn tell(&self, partitions: &BTreeMap<Partition, String>) {
        ::metrics::gauge!(metrics::HALTED).set(partitions.len() as f64);
        if partitions.is_empty() {
            self.check.ready();
        } else {
            let reasons: Vec<_> = partitions.values().map(String::as_str).collect();
            self.check.not_ready(reasons.join("; "));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Partition, String>> {
        // A map of plain values is whole even if somebody panicked while holding it.
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

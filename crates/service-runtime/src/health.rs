//! Whether a process can do its work now: one check for each thing it depends on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::progress::{Stalled, Watchdog};

/// Name of the check of all tasks: computed when it is asked for, so that it needs no task to be known.
const TASKS: &str = "tasks";

/// How a part of the process fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Ready,
    /// It does its work, and somebody should look all the same.
    Degraded(Cow<'static, str>),
    NotReady(Cow<'static, str>),
}

/// All checks of a process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<&'static str, State>>>,
    watchdog: Watchdog,
}

/// The handle by which one part of the process tells how it fares. Clones are the same check.
#[derive(Debug, Clone)]
pub struct Check {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check, which is not ready until its handle says so.
    pub fn check(&self, name: &'static str) -> Check {
        self.lock().insert(name, State::NotReady("not known yet".into()));
        Check { name, readiness: self.clone() }
    }

    /// The state of every check by its name. A process is ready when none of them is not.
    pub fn states(&self) -> BTreeMap<&'static str, State> {
        let mut states = self.lock().clone();
        if self.watchdog.watches() {
            states.insert(TASKS, tasks_state(&self.watchdog.stalled()));
        }
        states
    }

    pub fn is_ready(&self) -> bool {
        self.states().values().all(State::is_ready)
    }

    pub(crate) fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, State>> {
        // A map of plain values is whole even if somebody panicked while holding it.
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tasks_state(stalled: &[Stalled]) -> State {
    let name = |Stalled { task, silence }: &Stalled| {
        format!("`{task}` has made no progress for {} s", silence.as_secs())
    };
    match stalled.iter().map(name).collect::<Vec<_>>() {
        none if none.is_empty() => State::Ready,
        some => State::NotReady(some.join("; ").into()),
    }
}

impl State {
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Ready | Self::Degraded(_) => true,
            Self::NotReady(_) => false,
        }
    }
}

impl Check {
    pub fn ready(&self) {
        let name = self.name;
        if self.set(State::Ready).is_some_and(|before| before != State::Ready) {
            tracing::info!(check = name, "Ready: {name}");
        }
    }

    /// Ready, though not as it should be.
    pub fn degraded(&self, why: impl Into<Cow<'static, str>>) {
        let (name, why) = (self.name, why.into());
        let state = State::Degraded(why.clone());
        if self.set(state.clone()).is_some_and(|before| before != state) {
            tracing::warn!(check = name, "Degraded: {name}, {why}");
        }
    }

    pub fn not_ready(&self, why: impl Into<Cow<'static, str>>) {
        let (name, why) = (self.name, why.into());
        if self.set(State::NotReady(why.clone())).is_some_and(|before| before.is_ready()) {
            tracing::warn!(check = name, "Not ready any more: {name}, {why}");
        }
    }

    fn set(&self, state: State) -> Option<State> {
        self.readiness.lock().insert(self.name, state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_process_is_ready_when_all_its_checks_are() {
        let readiness = Readiness::new();
        let (postgres, kafka) = (readiness.check("postgres"), readiness.check("kafka"));
        assert!(!readiness.is_ready());
        postgres.ready();
        assert!(!readiness.is_ready());
        kafka.clone().ready();
        assert!(readiness.is_ready());
        postgres.degraded("slow");
        assert!(readiness.is_ready());
        assert_eq!(readiness.states()["postgres"], State::Degraded("slow".into()));
        postgres.not_ready("connection refused");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.states()["postgres"], State::NotReady("connection refused".into()));
    }

    #[test]
    fn a_process_with_a_task_that_hangs_is_not_ready() {
        let stalled = |task| Stalled { task, silence: Duration::from_millis(8500) };
        let expected =
            "`relay` has made no progress for 8 s; `writer` has made no progress for 8 s";
        let state = tasks_state(&[stalled("relay"), stalled("writer")]);
        assert_eq!(state, State::NotReady(expected.into()));
        assert_eq!(tasks_state(&[]), State::Ready);
    }
}

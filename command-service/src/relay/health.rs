//! The readiness check `relay`: publishing stands still, the topic is not as it should be, or an event is
//! published without its payload.
//!
//! It is never worse than degraded: commands are taken all the same, and views are read from Postgres.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::Position;
use service_runtime::Check;

use super::topic::TopicState;

/// Time for which the cursor may stand still below the head of the event store.
pub const STANDSTILL_LIMIT: Duration = Duration::from_secs(30);
/// Time for which a rejected event is reported, unless the topic's limit is raised before.
const REJECTION_TTL: Duration = Duration::from_secs(600);

/// State of the relay, as one process knows it. Clones share it.
#[derive(Debug, Clone)]
pub struct RelayHealth {
    check: Check,
    limit: Duration,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Where the cursor has stood since when, below the head.
    stands: Option<(Position, Instant)>,
    /// Why the last round of this process failed.
    error: Option<String>,
    topic: Vec<String>,
    rejected: Option<(Rejected, Instant)>,
}

/// An event that Kafka rejects, published as a stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejected {
    pub position: Position,
    /// Size of its payload.
    pub bytes: usize,
    /// Longest batch that the topic takes, if that is known.
    pub limit: Option<usize>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, bytes, limit } = self;
        write!(f, "Kafka rejects the event at position {position} ({bytes} bytes; ")?;
        match limit {
            Some(limit) => write!(f, "the topic takes {limit}")?,
            None => f.write_str("the topic's limit is unknown")?,
        }
        f.write_str("), it was published without its payload")
    }
}

impl RelayHealth {
    /// Reports to `check`; a cursor that stands still is reported after `limit`.
    pub fn new(check: Check, limit: Duration) -> Self {
        check.ready();
        Self { check, limit, known: Arc::default() }
    }

    /// Takes note of how far the relay has come, whichever process runs it.
    pub fn observe(&self, cursor: Position, head: Position) {
        let mut known = self.lock();
        known.stands = match known.stands.take() {
            _ if cursor >= head => None,
            Some((at, since)) if at == cursor => Some((at, since)),
            _ => Some((cursor, Instant::now())),
        };
        if known.stands.is_none() {
            known.error = None;
        }
        self.report(&mut known);
    }

    /// Takes note of why a round has failed.
    pub(super) fn failed(&self, error: String) {
        let mut known = self.lock();
        known.error = Some(error);
        self.report(&mut known);
    }

    /// Takes note of the topic's state.
    pub(super) fn topic_is(&self, state: &TopicState) {
        let mut known = self.lock();
        known.topic.clone_from(&state.deviations);
        let limit = state.max_message_bytes.unwrap_or(0);
        if known
            .rejected
            .as_ref()
            .is_some_and(|(rejected, _)| rejected.limit.is_some_and(|before| limit > before))
        {
            known.rejected = None;
        }
        self.report(&mut known);
    }

    /// Takes note of a topic that nothing can be published to.
    pub(super) fn topic_cannot_be_used(&self, why: String) {
        let mut known = self.lock();
        known.topic = vec![why];
        self.report(&mut known);
    }

    pub(super) fn published_stub(&self, rejected: Rejected) {
        let mut known = self.lock();
        known.rejected = Some((rejected, Instant::now()));
        self.report(&mut known);
    }

    fn report(&self, known: &mut Known) {
        let mut why = known.topic.clone();
        if known.rejected.as_ref().is_some_and(|(_, at)| at.elapsed() > REJECTION_TTL) {
            known.rejected = None;
        }
        why.extend(known.rejected.as_ref().map(|(rejected, _)| rejected.to_string()));
        if let Some((cursor, since)) = &known.stands
            && since.elapsed() >= self.limit
        {
            let limit = self.limit.as_secs();
            // Free of numbers that change all the time: each new text is a line in the log.
            let error = known.error.as_deref();
            let error = error.unwrap_or("this process has seen no error, another may have");
            why.push(format!(
                "nothing above position {cursor} has been published for {limit} s: {error}"
            ));
        }
        if why.is_empty() {
            self.check.ready();
        } else {
            self.check.degraded(why.join("; "));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Plain values are whole even after a panic of their holder.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use service_runtime::Readiness;
    use service_runtime::health::State;

    use super::*;

    fn health(limit: Duration) -> (RelayHealth, impl Fn() -> Option<String>) {
        let readiness = Readiness::new();
        let health = RelayHealth::new(readiness.check("relay"), limit);
        let why = move || match readiness.states()["relay"].clone() {
            State::Ready => None,
            State::Degraded(why) => Some(why.into_owned()),
            State::NotReady(why) => panic!("not ready: {why}"),
        };
        (health, why)
    }

    #[test]
    fn a_cursor_that_stands_below_the_head_is_reported_with_the_last_error() {
        let (health, why) = health(Duration::ZERO);
        health.failed("the broker is asleep".to_owned());
        assert_eq!(why(), None);
        health.observe(Position(7), Position(9));
        let said = why().unwrap();
        assert!(said.contains("position 7") && said.contains("the broker is asleep"), "{said}");
        health.observe(Position(9), Position(9));
        assert_eq!(why(), None);
        health.observe(Position(9), Position(10));
        assert!(!why().unwrap().contains("asleep"));
    }

    #[test]
    fn a_cursor_that_moves_is_not_reported_however_far_behind_it_is() {
        let (health, why) = health(Duration::from_secs(60));
        for cursor in 0..100 {
            health.observe(Position(cursor), Position(1_000_000));
            assert_eq!(why(), None);
        }
    }

    #[test]
    fn a_rejected_event_is_reported_until_the_limit_is_raised() {
        let (health, why) = health(Duration::from_secs(60));
        let rejected = Rejected { position: Position(3), bytes: 250_000, limit: Some(100_000) };
        health.published_stub(rejected);
        let said = why().unwrap();
        for number in ["position 3", "250000", "100000"] {
            assert!(said.contains(number), "{said}");
        }
        let state = |limit| TopicState { max_message_bytes: Some(limit), ..TopicState::default() };
        health.topic_is(&state(100_000));
        assert!(why().is_some());
        health.topic_is(&state(200_000));
        assert_eq!(why(), None);
    }
}

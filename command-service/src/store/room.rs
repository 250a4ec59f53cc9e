//! The room that commits have while they wait for Postgres: bounded in bytes, and in the time that the last to
//! come has to wait.
//!
//! The wait is reckoned by Little's law, as the length of the queue by the rate at which it is served: so many
//! calls, each as long as the last ones were, behind one that has been in hand for so long. Whoever would wait
//! too long is told at once, when trying again elsewhere or later is still of use.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::AppendError;
use super::writer::{MAX_BYTES, MAX_COMMITS};

/// How much may wait for Postgres.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    pub kib: u32,
    /// Further commits are turned away while they would have to wait longer.
    pub wait: Duration,
}

#[derive(Debug)]
pub(super) struct Room {
    limits: QueueLimits,
    state: Mutex<State>,
    commits: metrics::Gauge,
    bytes: metrics::Gauge,
}

#[derive(Debug, Default)]
struct State {
    /// What is not answered yet, in the queue or on its way.
    commits: usize,
    kib: usize,
    /// Since when Postgres has a call in hand.
    call: Option<Instant>,
    /// How long the last two took.
    last: [Duration; 2],
}

/// What one commit takes of the room. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    room: Arc<Room>,
    kib: usize,
}

impl Room {
    pub(super) fn new(limits: QueueLimits) -> Arc<Self> {
        let commits = metrics::gauge!("append_queue_commits");
        let bytes = metrics::gauge!("append_queue_bytes");
        Arc::new(Self { limits, state: Mutex::default(), commits, bytes })
    }

    /// Lets a commit in, unless it finds no room or would have to wait too long.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Result<Taken, AppendError> {
        let kib = bytes.div_ceil(1024);
        let mut state = self.lock();
        let refused = if state.kib + kib > self.limits.kib as usize {
            Some("full")
        } else {
            (state.expected_wait() > self.limits.wait).then_some("slow")
        };
        if let Some(reason) = refused {
            drop(state);
            metrics::counter!("append_turned_away_total", "reason" => reason).increment(1);
            return Err(AppendError::Overloaded);
        }
        state.commits += 1;
        state.kib += kib;
        self.tell(&state);
        drop(state);
        Ok(Taken { room: Arc::clone(self), kib })
    }

    pub(super) fn call_begins(&self) {
        self.lock().call = Some(Instant::now());
    }

    /// Tells how long it took.
    pub(super) fn call_ends(&self) -> Duration {
        let mut state = self.lock();
        let took = state.in_hand();
        (state.call, state.last) = (None, [took, state.last[0]]);
        took
    }

    fn tell(&self, state: &State) {
        self.commits.set(state.commits as f64);
        self.bytes.set((state.kib * 1024) as f64);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain numbers are whole even if somebody panicked while holding them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// None at all while nobody waits: however slow Postgres has been, somebody has to find out how it is now.
    fn expected_wait(&self) -> Duration {
        let full_calls =
            self.kib.div_ceil(MAX_BYTES / 1024).max(self.commits.div_ceil(MAX_COMMITS));
        // The faster of two, so that a single hiccup is not taken for the pace.
        let each = self.last[0].min(self.last[1]);
        self.in_hand() + each.saturating_mul(u32::try_from(full_calls).unwrap_or(u32::MAX))
    }

    fn in_hand(&self) -> Duration {
        self.call.map_or(Duration::ZERO, |began| began.elapsed())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.commits -= 1;
        state.kib -= self.kib;
        self.room.tell(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_and_given_back() {
        let room = Room::new(QueueLimits { kib: 4, wait: Duration::MAX });
        let taken = room.take(3 * 1024).unwrap();
        assert!(room.take(1025).is_err());
        let _small = room.take(1).unwrap();
        drop(taken);
        assert!(room.take(3 * 1024).is_ok());
    }

    #[test]
    fn who_would_wait_too_long_is_turned_away() {
        let room = Room::new(QueueLimits { kib: 1024, wait: Duration::from_secs(1) });
        room.lock().last = [Duration::from_millis(400); 2];
        // Two calls are within the limit, three are not.
        let taken: Vec<_> = (0..=2 * MAX_COMMITS).map(|_| room.take(1).unwrap()).collect();
        assert!(room.take(1).is_err());
        drop(taken);
        assert!(room.take(1).is_ok());
    }

    #[test]
    fn however_slow_it_was_one_is_let_in_to_see_how_it_is() {
        let room = Room::new(QueueLimits { kib: 1024, wait: Duration::from_secs(1) });
        room.lock().last = [Duration::from_secs(60); 2];
        let _first = room.take(1).unwrap();
        assert!(room.take(1).is_err());
    }

    #[test]
    fn nobody_is_let_in_behind_a_call_that_does_not_end() {
        let room = Room::new(QueueLimits { kib: 1024, wait: Duration::from_secs(1) });
        let in_hand = room.take(1).unwrap();
        room.lock().call = Instant::now().checked_sub(Duration::from_secs(2));
        assert!(room.take(1).is_err());
        assert!(room.call_ends() >= Duration::from_secs(2));
        // That it was slow once does not mean that it is.
        assert!(room.take(1).is_ok());
        drop(in_hand);
    }
}

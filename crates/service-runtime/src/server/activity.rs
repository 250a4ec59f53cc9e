//! Present activity of a connection and its begin, as the server sees it from outside.
//!
//! A connection notes what it does in atomics. The server looks at all of them a few times a second, so
//! that no request pays for setting timers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::limits::Limits;

/// Microseconds of a server's own time. It does not run while the process stands still, since then no
/// client could be served.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    /// The time of the last look at all connections: by this clock, and since the origin.
    own: AtomicU64,
    real: AtomicU64,
}

impl Clock {
    /// The most that passes between two looks.
    const MAX_STEP: u64 = 1_000_000;

    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), own: AtomicU64::new(0), real: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        let real = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.at(real)
    }

    fn at(&self, real: u64) -> u64 {
        let since_look = real.saturating_sub(self.real.load(Ordering::Relaxed));
        self.own.load(Ordering::Relaxed) + since_look.min(Self::MAX_STEP)
    }

    /// Notes that all connections are looked at now.
    pub(super) fn look(&self) {
        self.look_at(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX));
    }

    fn look_at(&self, real: u64) {
        self.own.store(self.at(real), Ordering::Relaxed);
        self.real.store(real, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing of the next request has arrived.
    Idle,
    /// A part of a request's head has arrived.
    Head,
    /// A request is being served.
    Busy,
    /// The last response has been sent, and what still arrives is discarded.
    Draining,
}

/// Why the server closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// No request for too long.
    Idle,
    /// A head that does not end.
    Head,
    /// A client that does not read its response.
    Write,
    /// Room for other connections.
    Evicted,
}

impl Reason {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Head => "head",
            Self::Write => "write",
            Self::Evicted => "evicted",
        }
    }
}

/// One connection, shared by what serves it and by the server.
#[derive(Debug)]
pub(super) struct Activity {
    clock: Arc<Clock>,
    /// A phase in the lowest two bits, and above them the time at which it began.
    phase: AtomicU64,
    /// The time since which the client has accepted nothing, plus one; 0 if nothing waits for it.
    blocked: AtomicU64,
    /// The server is stopping.
    stopping: AtomicBool,
    /// The server wants to make room.
    evicted: AtomicBool,
    /// The client has not yet sent all of a request's body.
    pub(super) has_unread_body: AtomicBool,
    /// The connection should look at what the server wants.
    looked_at: Notify,
}

impl Activity {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        let activity = Self {
            clock,
            phase: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            has_unread_body: AtomicBool::new(false),
            looked_at: Notify::new(),
        };
        activity.enter(Phase::Idle);
        activity
    }

    pub(super) fn enter(&self, phase: Phase) {
        let tag = match phase {
            Phase::Idle => 0,
            Phase::Head => 1,
            Phase::Busy => 2,
            Phase::Draining => 3,
        };
        self.phase.store(self.clock.now() << 2 | tag, Ordering::Relaxed);
    }

    /// Returns the phase and the time at which it began.
    fn phase(&self) -> (Phase, u64) {
        let phase = self.phase.load(Ordering::Relaxed);
        let tag = match phase & 3 {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Busy,
            _ => Phase::Draining,
        };
        (tag, phase >> 2)
    }

    /// Notes that bytes have arrived.
    pub(super) fn has_read(&self) {
        if self.phase().0 == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// Notes whether the client has accepted bytes.
    pub(super) fn has_written(&self, progressed: bool) {
        let blocked = self.blocked.load(Ordering::Relaxed);
        if progressed && blocked != 0 {
            self.blocked.store(0, Ordering::Relaxed);
        } else if !progressed && blocked == 0 {
            self.blocked.store(self.clock.now() + 1, Ordering::Relaxed);
        }
    }

    /// Returns the time since which the connection only waits, if it may be closed to make room.
    pub(super) fn evictable_since(&self, limits: &Limits) -> Option<u64> {
        let (phase, since) = self.phase();
        let waits = phase != Phase::Busy && self.blocked.load(Ordering::Relaxed) == 0;
        let waited = u128::from(self.clock.now().saturating_sub(since));
        (waits && waited >= limits.min_wait.as_micros()).then_some(since)
    }

    /// Returns the reason for which the connection should be closed now, if there is one.
    pub(super) fn verdict(&self, limits: &Limits) -> Option<Reason> {
        let now = self.clock.now();
        let over = |since: u64, limit: Duration| {
            u128::from(now.saturating_sub(since)) >= limit.as_micros()
        };
        let blocked = self.blocked.load(Ordering::Relaxed);
        if blocked != 0 {
            return over(blocked - 1, limits.write).then_some(Reason::Write);
        }
        match self.phase() {
            (Phase::Busy, _) => None,
            _ if self.evicted.load(Ordering::Relaxed) => Some(Reason::Evicted),
            (Phase::Idle, since) if over(since, limits.idle) => Some(Reason::Idle),
            (Phase::Head, since) if over(since, limits.head) => Some(Reason::Head),
            (Phase::Idle | Phase::Head | Phase::Draining, _) => None,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.looked_at.notify_one();
    }

    pub(super) fn evict(&self) {
        self.evicted.store(true, Ordering::Relaxed);
        self.looked_at.notify_one();
    }

    /// Notifies the connection if it is over one of the limits.
    pub(super) fn check(&self, limits: &Limits) {
        if self.verdict(limits).is_some() {
            self.looked_at.notify_one();
        }
    }

    /// Completes when the server wants something of the connection.
    pub(super) async fn looked_at(&self) {
        self.looked_at.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_closed_for_what_it_waits_for() {
        let (limits, clock) = (Limits::ops(), Arc::new(Clock::new()));
        let activity = Activity::new(clock.clone());
        let after = |seconds: u64| {
            clock.own.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
            activity.verdict(&limits)
        };
        assert_eq!(after(70), None);
        assert_eq!(after(5), Some(Reason::Idle));
        activity.has_read();
        assert_eq!(after(5), None);
        activity.has_read();
        assert_eq!(after(5), Some(Reason::Head));
        activity.enter(Phase::Busy);
        assert_eq!((after(1000), activity.evictable_since(&limits)), (None, None));
        activity.has_written(false);
        assert_eq!(after(5), None);
        activity.has_written(false);
        assert_eq!(after(5), Some(Reason::Write));
        activity.has_written(true);
        assert_eq!(activity.verdict(&limits), None);
        activity.evict();
        assert_eq!(activity.verdict(&limits), None, "a request is being served");
        activity.enter(Phase::Idle);
        assert_eq!(activity.verdict(&limits), Some(Reason::Evicted));
    }

    #[test]
    fn every_connection_has_a_moment_for_its_request() {
        let (limits, clock) = (Limits::ops(), Arc::new(Clock::new()));
        let activity = Activity::new(clock.clone());
        assert_eq!(activity.evictable_since(&limits), None);
        clock.own.fetch_add(5_000_000, Ordering::Relaxed);
        assert!(activity.evictable_since(&limits).is_some());
        activity.has_written(false);
        assert_eq!(activity.evictable_since(&limits), None, "a response is being sent");
    }

    #[test]
    fn time_in_which_the_process_stands_still_does_not_count() {
        let clock = Clock::new();
        clock.look_at(250_000);
        assert_eq!(clock.at(500_000), 500_000);
        assert_eq!(clock.at(60_000_000), 1_250_000);
        clock.look_at(60_000_000);
        assert_eq!(clock.at(60_250_000), 1_500_000);
    }
}

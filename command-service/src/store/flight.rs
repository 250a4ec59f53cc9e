//! State machine of a batch on its way to Postgres.
//!
//! ```text
//!                 ┌────────── passing error ───────────┐
//!                 ▼                                    │
//!             NotSent ───────── sent ────────────► InFlight ── judged ──► Judged
//!                                                  ▲   │  │
//!          sent again, once the lost backend ended │   │  └─ bad data, cancelled twice ──► Halved
//!                                                  │   │     (of a single commit: Failed)
//!                                    OutcomeUnknown ◄──┘
//!                                          no answer
//! ```
//!
//! The machine is pure: the writer tells it what happened, and acts on the state it answers with.

/// Number of cancelled calls after which a batch is halved.
const MAX_CANCELLED: u8 = 2;

/// State of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Certainly not recorded: no call was sent, or Postgres has rolled back every one.
    NotSent,
    /// A call is running.
    InFlight,
    /// A call ended without an answer. The event store may have the batch, or may still get it.
    OutcomeUnknown,
    /// Every commit has its judgement.
    Judged,
    /// The batch goes on as two halves.
    Halved,
    /// The batch is a single commit that cannot be recorded, and was not.
    Failed,
}

/// End of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallEnd {
    Judged,
    /// Postgres answered with an error and has rolled the call back.
    RolledBack(Reason),
    /// The connection broke.
    Broken,
    /// No answer came within the limit of a call.
    TimedOut,
}

/// Reason for which Postgres rolled a call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A commit holds data that Postgres never accepts.
    BadData,
    /// An error that sending again does not change, but that says nothing about earlier calls.
    Refused,
    /// The call was cancelled, for example by a `statement_timeout`.
    Cancelled,
    /// A lock timeout, a deadlock, a shutdown or a read-only server: the next call may succeed.
    Passing,
}

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Flight {
    state: State,
    commits: usize,
    /// Some call ended without an answer, so a later error does not tell the outcome.
    is_unknown: bool,
    /// Number of calls that were cancelled, by Postgres or at our limit.
    cancelled: u8,
}

impl Flight {
    pub(super) fn new() -> Self {
        Self { state: State::NotSent, commits: 0, is_unknown: false, cancelled: 0 }
    }

    /// Flight of one half of a batch: it inherits what is known.
    pub(super) fn half(&self) -> Self {
        let state = if self.is_unknown { State::OutcomeUnknown } else { State::NotSent };
        Self { state, is_unknown: self.is_unknown, ..Self::new() }
    }

    /// Returns `true` if an earlier call may have recorded the batch.
    pub(super) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// Notes that a call with so many commits is sent.
    pub(super) fn sends(&mut self, commits: usize) {
        self.commits = commits;
        self.state = State::InFlight;
    }

    /// Notes the end of the call, and returns the state after it.
    pub(super) fn ends(&mut self, end: CallEnd) -> State {
        let is_cancelled =
            matches!(end, CallEnd::RolledBack(Reason::Cancelled) | CallEnd::TimedOut);
        self.is_unknown |= matches!(end, CallEnd::Broken | CallEnd::TimedOut);
        self.cancelled = self.cancelled.saturating_add(u8::from(is_cancelled));
        let is_worn_out = is_cancelled && self.cancelled >= MAX_CANCELLED;
        let is_refused = matches!(end, CallEnd::RolledBack(Reason::BadData | Reason::Refused));
        self.state = if end == CallEnd::Judged {
            State::Judged
        } else if self.commits > 1 && (is_refused || is_worn_out) {
            State::Halved
        } else if end == CallEnd::RolledBack(Reason::BadData) {
            // Each earlier call has failed by the same data.
            State::Failed
        } else if self.is_unknown {
            State::OutcomeUnknown
        } else if is_refused || is_worn_out {
            State::Failed
        } else {
            State::NotSent
        };
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANCELLED: CallEnd = CallEnd::RolledBack(Reason::Cancelled);
    const PASSING: CallEnd = CallEnd::RolledBack(Reason::Passing);
    const REFUSED: CallEnd = CallEnd::RolledBack(Reason::Refused);
    const BAD_DATA: CallEnd = CallEnd::RolledBack(Reason::BadData);

    /// State of a batch of so many commits after calls that ended like this.
    fn after(commits: usize, ends: &[CallEnd]) -> State {
        let mut flight = Flight::new();
        for end in ends {
            flight.sends(commits);
            flight.ends(*end);
        }
        flight.state
    }

    #[test]
    fn every_edge_leads_where_the_drawing_says() {
        use CallEnd::{Broken, Judged, TimedOut};
        for (commits, ends, state) in [
            (2, &[][..], State::NotSent),
            (2, &[Judged], State::Judged),
            (2, &[Broken, Judged], State::Judged),
            // An error that passes leaves the outcome as known as it was.
            (2, &[PASSING], State::NotSent),
            (2, &[PASSING, PASSING, PASSING], State::NotSent),
            (2, &[Broken], State::OutcomeUnknown),
            (2, &[Broken, PASSING], State::OutcomeUnknown),
            (2, &[Broken, Broken, Broken], State::OutcomeUnknown),
            // A batch is halved when it was cancelled twice, by Postgres or by its own limit.
            (2, &[CANCELLED], State::NotSent),
            (2, &[CANCELLED, PASSING, CANCELLED], State::Halved),
            (2, &[TimedOut], State::OutcomeUnknown),
            (2, &[TimedOut, CANCELLED], State::Halved),
            (2, &[TimedOut, TimedOut], State::Halved),
            (1, &[CANCELLED], State::NotSent),
            (1, &[CANCELLED, CANCELLED], State::Failed),
            (1, &[TimedOut, CANCELLED], State::OutcomeUnknown),
            (1, &[TimedOut, TimedOut], State::OutcomeUnknown),
            // A commit that Postgres refuses is found by halving, and fails alone.
            (2, &[BAD_DATA], State::Halved),
            (1, &[BAD_DATA], State::Failed),
            (1, &[Broken, BAD_DATA], State::Failed),
            (2, &[REFUSED], State::Halved),
            (1, &[REFUSED], State::Failed),
            (1, &[Broken, REFUSED], State::OutcomeUnknown),
        ] {
            assert_eq!(after(commits, ends), state, "{commits} commits after {ends:?}");
        }
    }

    #[test]
    fn a_half_inherits_what_is_known_and_begins_to_count_again() {
        let mut known = Flight::new();
        let mut unknown = Flight::new();
        for (flight, end) in [(&mut known, CANCELLED), (&mut unknown, CallEnd::TimedOut)] {
            for _ in 0..2 {
                flight.sends(2);
                flight.ends(end);
            }
            assert_eq!(flight.state, State::Halved);
        }
        let (mut known, mut unknown) = (known.half(), unknown.half());
        assert_eq!((known.state, unknown.state), (State::NotSent, State::OutcomeUnknown));
        assert!(!known.is_unknown() && unknown.is_unknown());
        known.sends(1);
        unknown.sends(1);
        assert_eq!(known.ends(CANCELLED), State::NotSent);
        assert_eq!(unknown.ends(CANCELLED), State::OutcomeUnknown);
    }
}

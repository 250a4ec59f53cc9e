//! Ticket of a commit: requester and writer agree on whether it may still be withdrawn.
//!
//! A requester whose deadline has passed withdraws its commit. If that succeeds, the commit is
//! certainly not recorded and never will be. Otherwise it was sent, and its outcome is unknown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const NOT_SENT: u8 = 0;
const SENT: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Clones share the state.
#[derive(Debug, Clone, Default)]
pub(super) struct Ticket(Arc<AtomicU8>);

impl Ticket {
    /// Marks the commit as sent. Returns `false` if it was withdrawn and must not be sent.
    pub(super) fn send(&self) -> bool {
        self.change(NOT_SENT, SENT) || self.0.load(Ordering::SeqCst) == SENT
    }

    /// Marks a sent commit as not sent: Postgres has rolled back every call with it.
    pub(super) fn take_back(&self) {
        self.change(SENT, NOT_SENT);
    }

    /// Withdraws the commit. Returns `true` if it is certainly not recorded.
    pub(super) fn withdraw(&self) -> bool {
        self.change(NOT_SENT, WITHDRAWN) || self.0.load(Ordering::SeqCst) == WITHDRAWN
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_was_not_sent_can_be_withdrawn_and_is_never_sent() {
        let ticket = Ticket::default();
        assert!(ticket.withdraw());
        assert!(ticket.withdraw());
        assert!(!ticket.send());
    }

    #[test]
    fn a_commit_that_was_sent_cannot_be_withdrawn_and_may_be_sent_again() {
        let ticket = Ticket::default();
        assert!(ticket.send());
        assert!(!ticket.withdraw());
        assert!(ticket.send());
    }

    #[test]
    fn a_commit_that_was_rolled_back_can_be_withdrawn() {
        let ticket = Ticket::default();
        assert!(ticket.send());
        ticket.take_back();
        assert!(ticket.withdraw());
        ticket.take_back();
        assert!(!ticket.send());
    }
}

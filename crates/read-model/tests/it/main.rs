//! The views in a real Redis: who may write what, and what is left of it.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as the test itself may")]

mod announcements;
mod epochs;
mod generations;
mod ground;
mod guard;
mod interleavings;
mod lists;
mod quarantine;
mod support;
mod texts;
mod waiting;

//! The views in a cluster of three masters: all that holds for a single Redis, and what happens while slots and
//! masters change.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as the test itself may")]

mod failing;
mod ground;
mod moving;

#[path = "../it/announcements.rs"]
mod announcements;
#[path = "../it/epochs.rs"]
mod epochs;
#[path = "../it/generations.rs"]
mod generations;
#[path = "../it/guard.rs"]
mod guard;
#[path = "../it/interleavings.rs"]
mod interleavings;
#[path = "../it/lists.rs"]
mod lists;
#[path = "../it/quarantine.rs"]
mod quarantine;
#[path = "../it/support.rs"]
mod support;
#[path = "../it/texts.rs"]
mod texts;
#[path = "../it/waiting.rs"]
mod waiting;

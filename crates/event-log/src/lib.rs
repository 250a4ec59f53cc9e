//! Reads the log of events: ranges by position, one partition, whole pages.
//!
//! The relay, the filling of gaps, the folding of one missing page and a rebuild all read through here.
//! Writing events is the command service's; what they mean, the domain's.

mod log;
mod pool;
mod schema;

pub use log::{EventLog, Pages, Touched};
pub use pool::{PoolSettings, address, pool};
pub use schema::{Store, StoreError, create, migrate, open, open_within};

//! Reads the log of events: ranges by position, one partition, whole pages.
//!
//! The relay, the filling of gaps, the folding of one missing page and a rebuild all read through here.
//! Writing events is the command service's; what they mean, the domain's.

mod generations;
mod histories;
mod log;
mod pool;
mod probe;
mod quarantine;
mod scan;
mod schema;
mod writable;

pub use generations::{Generation, GenerationLease, GenerationState, Generations};
pub use histories::{Histories, Reading, Unreadable};
pub use log::{EventLog, Pages, Touched};
pub use pool::{PoolSettings, VANISHED_CLIENT, address, pool};
pub use probe::{Probe, Probing, StoreState, is_refusal};
pub use quarantine::{Entry, State};
pub use scan::{IdRange, Scan};
pub use schema::{Store, StoreError, TokenKey, create, migrate, open, open_within};
pub use writable::{ReadOnly, connect, is_read_only, require_writable};

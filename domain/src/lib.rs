//! The rules of publishing: what can be asked, what can have happened, and what follows from it.
//!
//! No I/O, no clock, no randomness: everything here is a function of its arguments.

pub mod ids;
pub mod invalid;
pub mod partition;
pub mod slug;

pub mod post;

pub mod message;
pub mod recorded;

pub use ids::{AuthorId, PostId};
pub use invalid::Invalid;
pub use message::Message;
pub use partition::{Partition, Partitions};
pub use recorded::{Point, Position, RawEvent, Recorded, StoredEvent, Undecodable, Upcast};
pub use slug::{Claim, Slug};

//! The views that readers are answered from: what they hold, how an event changes them, where they lie in
//! Redis, and the guard through which everybody writes them.
//!
//! The projector folds events as they come, the query service folds one page that is missing, and both use
//! the same functions and the same script. Reading the log is `event-log`'s.

mod announcements;
mod building;
mod claims;
mod cluster;
mod connection;
#[cfg(test)]
mod corpus;
mod epochs;
mod folding;
mod generations;
mod guard;
mod high_water;
mod inspection;
mod keys;
mod lengthened;
mod lists;
pub mod markdown;
mod node;
mod post_page;
mod reading;
mod row;
mod slots;
mod views;
mod waiting;
mod writing;

/// Version of the views. It counts up when the same events give another view.
pub const VIEW_VERSION: u32 = 6;

/// Digest of this version and of the views that a fixed corpus of events gives. A test computes it.
#[cfg(test)]
const VIEW_DIGEST: &str = "6d2b800c62977f769bfff4516e917197c38021e1a8ec506c2d80f2ff1fbda27a";

pub use announcements::{Announcements, Change, Heard, Visibility};
pub use building::Part;
pub use epochs::NewEpoch;
pub use folding::{Fold, FoldEnd, FoldPanic, Folds, fold_caught, fold_histories_caught};
pub use generations::{Removal, Size};
pub use guard::{Judgement, StorePosition, Watermark, judge};
pub use high_water::Heights;
pub use inspection::{Difference, Entry, Inspected};
pub use keys::{FIRST_GENERATION, KeySpace, PrefixError};
pub use lists::{ListName, Place};
pub use post_page::{PostCard, PostPage, fold_page};
pub use reading::{FoundHtml, FoundRow, ListPart};
pub use row::{Row, StoredPage, StoredRow, fold_histories, fold_pages};
pub use views::{Views, ViewsError};
pub use waiting::{Waiting, WatchTask, waiting};
pub use writing::{Advance, Fill, Flag, Guarded};

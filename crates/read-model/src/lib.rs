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
mod epochs;
mod generations;
mod guard;
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

/// Counts up when the same events come to give another view.
pub const VIEW_VERSION: u32 = 4;

pub use announcements::{Announcements, Heard};
pub use building::Part;
pub use epochs::NewEpoch;
pub use generations::{Removal, Size};
pub use guard::{Judgement, Watermark, judge};
pub use inspection::{Difference, Entry, Inspected};
pub use keys::{FIRST_GENERATION, KeySpace, PrefixError};
pub use lists::{ListName, Place};
pub use post_page::{PostCard, PostPage};
pub use reading::{FoundHtml, FoundRow, ListPart};
pub use row::{Row, StoredPage, StoredRow, fold_histories, fold_pages};
pub use views::{Views, ViewsError};
pub use waiting::{Waiting, WatchTask, waiting};
pub use writing::{Advance, Fill, Flag, Guarded};

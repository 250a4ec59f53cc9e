//! A whole blog as its users have it: every service a process of its own, on real servers; authors who
//! write over HTTP, readers who read, and a look into the log to see whether all of them were told the
//! truth.

mod blog;
mod ground;
mod service;

mod author;
mod reader;

mod audit;
mod held_up;
mod judged;
mod load;
mod onlooker;
mod slow_clients;
mod steady;

pub use audit::Log;
pub use author::{Attempt, Author, Post};
pub use blog::Blog;
pub use ground::Ground;
pub use held_up::HeldUp;
pub use judged::{Judged, Kind, Tally};
pub use load::{Load, Outcome, Published};
pub use onlooker::{Onlooker, Seen};
pub use reader::{Answer, List, Reader};
pub use service::Service;
pub use slow_clients::{SlowClients, Slowness};
pub use steady::{Rates, Steady};

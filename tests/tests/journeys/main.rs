//! What people do with a blog, with everything running: every service a process, every server real.

mod addresses;
mod changing;
mod metrics;
mod paging;
mod reading;
mod rebuilding;

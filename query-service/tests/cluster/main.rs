//! The query service on a cluster of three masters: what holds on a single Redis of all that asks several partitions,
//! waits for them, or puts a row in its place.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as the test itself may")]

mod ground;

#[path = "../it/drafts.rs"]
mod drafts;
#[path = "../it/lists.rs"]
mod lists;
#[path = "../it/own_posts.rs"]
mod own_posts;
#[path = "../it/pages.rs"]
mod pages;
#[path = "../it/paging.rs"]
mod paging;
#[path = "../it/rows.rs"]
mod rows;
#[path = "../it/slugs.rs"]
mod slugs;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "other tests need it")]
mod support;
#[path = "../it/tokens.rs"]
mod tokens;

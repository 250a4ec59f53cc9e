//! The query service against its own Postgres and Redis.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as the test itself may")]

mod breakers;
mod bulkhead;
mod cluster;
mod drafts;
mod dump;
mod failover;
mod feed;
mod ground;
mod html;
mod lists;
mod memory;
mod metrics;
mod openapi;
mod outages;
mod own_posts;
mod pages;
mod paging;
mod rows;
mod slugs;
mod stampede;
mod support;
mod tokens;
mod withdrawn;

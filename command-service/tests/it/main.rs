//! This service against its own Postgres and Kafka.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod append;
mod clock;
mod expiry;
mod failover;
mod handover;
mod http;
mod long_streams;
mod lost_reads;
mod metrics;
mod openapi;
mod overload;
mod races;
mod relay;
mod relay_lease;
mod relay_topic;
mod repeating;
mod request_ids;
mod slow_clients;
mod standby;
mod turns;
mod unknown_outcomes;
mod upcasting;
mod witness;
mod words;

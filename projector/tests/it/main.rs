//! The projector against its own Postgres, Kafka and Redis.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail as the test itself may")]

mod cluster;
mod failover;
mod forks;
mod kafka_lost;
mod live;
mod losses;
mod metrics;
mod operator;
mod panics;
mod rebuilding;
mod restarts;
mod several;
mod silence;
mod support;
mod undecodable;
mod unreadable;
mod verifying;

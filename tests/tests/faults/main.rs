//! What is promised when something breaks, with everything running: processes are killed, servers stopped
//! and emptied, under load and under the eyes of readers.

mod kafka;
mod keyed_retries;
mod killed_services;
mod postgres;
mod redis;
mod redis_cluster;
mod slow_clients;
mod stopped_services;

//! Real servers and separate rooms for tests: starts Postgres, Redis and Kafka, gives each test a
//! database, topic and prefix of its own, cuts wires and kills processes. Knows no service.
//!
//! What starts and stops servers returns a `Result`, since the launcher behind `make run` uses it
//! too. What only tests call panics with a sentence, so that a test reads without error handling.

mod place;
mod ports;
mod process;
mod service;

mod kafka;
mod moving_slot;
mod postgres;
mod redis_cluster;
mod redis_server;

mod acls;
mod database;
mod eventually;
mod own;
mod proxy;
mod recorded;
mod shared;
mod topics;

pub use acls::{allow_writing, forbid_writing};
pub use database::TestDatabase;
pub use eventually::{eventually, eventually_some, eventually_within};
pub use kafka::{Kafka, KafkaOptions, Proxied};
pub use moving_slot::MovingSlot;
pub use own::{
    own_kafka, own_kafka_behind_proxy, own_kafka_with, own_postgres, own_redis, own_redis_cluster,
    own_redis_with, own_standby_of,
};
pub use place::{Place, data_path, remove_leftovers, workspace_root};
pub use ports::{free_port, require_free};
pub use postgres::{Postgres, PostgresOptions};
pub use process::{Launch, Process, Signal};
pub use proxy::{Proxy, Way};
pub use recorded::{expect_recorded, expect_recorded_below};
pub use redis_cluster::{RedisCluster, connection_to, patient_connection};
pub use redis_server::{Redis, RedisOptions};
pub use service::{program_folder, service_binary, service_process};
pub use shared::{KAFKA, KAFKA_PROXIED, POSTGRES_URL, REDIS_URL, Shared, shared, unique_name};
pub use topics::{
    configure_topic, create_topic, delete_topic, extend_topic, topic_partitions, topic_setting,
};

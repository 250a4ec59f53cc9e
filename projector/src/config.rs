//! Every setting of the projector, with its default and its reason.

use std::net::SocketAddr;

use clap::Parser;
use service_runtime::{DrainArgs, Secret, TelemetryArgs};

/// Keeps the views in Redis up to date with the log of events.
#[derive(Debug, Clone, Parser)]
#[command(name = "projector", version)]
pub struct Config {
    /// Where the log of events is: a `postgres://` URL
    #[arg(long, env = "INKSTREAM_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// Where the views are: a `redis://` URL
    #[arg(long, env = "INKSTREAM_REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// What all keys in Redis begin with
    #[arg(long, env = "INKSTREAM_REDIS_PREFIX", default_value = "inkstream")]
    pub redis_prefix: String,

    /// Kafka's bootstrap servers, `host:port`, separated by commas
    #[arg(long, env = "INKSTREAM_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// The topic that the log is carried to
    #[arg(long, env = "INKSTREAM_KAFKA_TOPIC", default_value = "inkstream.events")]
    pub kafka_topic: String,

    /// The consumer group; all projectors of one key space share it
    #[arg(long, env = "INKSTREAM_KAFKA_GROUP", default_value = "inkstream-projector")]
    pub kafka_group: String,

    /// How long a partition may stand still below the head of its log, in milliseconds, before it is read
    /// from Postgres instead of Kafka
    #[arg(long, env = "INKSTREAM_PATIENCE_MS", default_value_t = 2000)]
    pub patience_ms: u64,

    /// Where `/health/live`, `/health/ready` and `/metrics` are served
    #[arg(long, env = "INKSTREAM_OPS_ADDRESS", default_value = "127.0.0.1:9082")]
    pub ops_address: SocketAddr,

    #[command(flatten)]
    pub drain: DrainArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

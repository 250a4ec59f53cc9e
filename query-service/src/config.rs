//! Every setting, with its default and its reason.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use http_api::{AuthArgs, CorsArgs};
use service_runtime::{ConnectionArgs, DrainArgs, Secret, TelemetryArgs};

/// Answers reads: posts by their address, and lists of them.
#[derive(Debug, Clone, Parser)]
#[command(name = "query-service", version)]
pub struct Config {
    /// The database with the log of events: postgres://user:password@host:port/database
    #[arg(long, env = "INKSTREAM_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// How many connections to it are open at most; only pages missing in Redis need one
    #[arg(
        long,
        env = "INKSTREAM_DATABASE_CONNECTIONS",
        default_value_t = 8,
        value_parser = RangedU64ValueParser::<u32>::new().range(1..=1000),
    )]
    pub database_connections: u32,

    /// The Redis with the views: redis://user:password@host:port; a Redis Cluster by some of
    /// its nodes: redis+cluster://user:password@host:port,host:port
    #[arg(long, env = "INKSTREAM_REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// What all keys in Redis begin with; the same for the projector
    #[arg(long, env = "INKSTREAM_REDIS_PREFIX", default_value = "inkstream")]
    pub redis_prefix: String,

    /// Where readers are answered
    #[arg(long, env = "INKSTREAM_HTTP_ADDRESS", default_value = "127.0.0.1:8081")]
    pub http_address: SocketAddr,

    /// What addresses in feeds and on pages begin with: where readers reach this service from outside
    #[arg(
        long,
        env = "INKSTREAM_PUBLIC_URL",
        default_value = "http://127.0.0.1:8081",
        value_parser = public_url,
    )]
    pub public_url: String,

    /// Where health and metrics are served
    #[arg(long, env = "INKSTREAM_OPS_ADDRESS", default_value = "127.0.0.1:9081")]
    pub ops_address: SocketAddr,

    /// How many milliseconds Redis has for an answer before a page is folded from the log instead
    #[arg(
        long,
        env = "INKSTREAM_REDIS_LIMIT_MS",
        default_value_t = 250,
        value_parser = clap::value_parser!(u64).range(1..=60_000),
    )]
    pub redis_limit_ms: u64,

    /// How many milliseconds a read of the log may take, waiting for its turn included
    #[arg(
        long,
        env = "INKSTREAM_LOG_LIMIT_MS",
        default_value_t = 2000,
        value_parser = clap::value_parser!(u64).range(1..=60_000),
    )]
    pub log_limit_ms: u64,

    /// How many reads of the log are under way at a time, as far as there are connections; more wait for
    /// their turn
    #[arg(
        long,
        env = "INKSTREAM_LOG_READS",
        default_value_t = 32,
        value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000),
    )]
    pub log_reads: u32,

    /// How many reads of the log wait for their turn; more are turned away at once
    #[arg(
        long,
        env = "INKSTREAM_LOG_QUEUE",
        default_value_t = 256,
        value_parser = RangedU64ValueParser::<u32>::new().range(0..=100_000),
    )]
    pub log_queue: u32,

    /// How many milliseconds the views have to come as far as a consistency token demands. Then a page is
    /// folded from the log instead, and a list is sent as it is and says that it is stale
    #[arg(
        long,
        env = "INKSTREAM_TOKEN_WAIT_MS",
        default_value_t = 250,
        value_parser = clap::value_parser!(u64).range(0..=10_000),
    )]
    pub token_wait_ms: u64,

    /// How many MiB pages that were read lately take up in this process; 0 keeps none, only which post a slug
    /// names, in one MiB
    #[arg(
        long,
        env = "INKSTREAM_MEMORY_MIB",
        default_value_t = 64,
        value_parser = RangedU64ValueParser::<usize>::new().range(0..=65_536),
    )]
    pub memory_mib: usize,

    /// How many milliseconds such a page is served before it is read again, should the announcement that it
    /// has changed be lost. Where none can be heard, and of what is not there, a second is the most
    #[arg(
        long,
        env = "INKSTREAM_MEMORY_MS",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..=60_000),
    )]
    pub memory_ms: u64,

    /// Maximum age, in seconds, of a copy that is sent while nothing else answers. After that the response is 503
    #[arg(
        long,
        env = "INKSTREAM_MEMORY_STALE_SECONDS",
        default_value_t = 3600,
        value_parser = clap::value_parser!(u64).range(1..=604_800),
    )]
    pub memory_stale_seconds: u64,

    /// Time, in seconds, that views may lag behind the event store before a response says that it is stale
    #[arg(
        long,
        env = "INKSTREAM_VIEWS_LAG_SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=600),
    )]
    pub views_lag_seconds: u64,

    /// How many seconds a request may take in all
    #[arg(
        long,
        env = "INKSTREAM_REQUEST_SECONDS",
        default_value_t = 5,
        value_parser = clap::value_parser!(u64).range(1..=3600),
    )]
    pub request_seconds: u64,

    /// How many seconds a starting process waits for a Postgres that cannot be reached yet
    #[arg(
        long,
        env = "INKSTREAM_START_SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(0..=3600),
    )]
    pub start_seconds: u64,

    #[command(flatten)]
    pub connections: ConnectionArgs,

    #[command(flatten)]
    pub auth: AuthArgs,

    #[command(flatten)]
    pub cors: CorsArgs,

    #[command(flatten)]
    pub drain: DrainArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Config {
    pub fn redis_limit(&self) -> Duration {
        Duration::from_millis(self.redis_limit_ms)
    }

    pub fn memory_lifetime(&self) -> Duration {
        Duration::from_millis(self.memory_ms)
    }

    pub fn memory_stale_limit(&self) -> Duration {
        Duration::from_secs(self.memory_stale_seconds)
    }

    pub fn views_lag_limit(&self) -> Duration {
        Duration::from_secs(self.views_lag_seconds)
    }

    pub fn token_wait(&self) -> Duration {
        Duration::from_millis(self.token_wait_ms)
    }

    pub fn log_limit(&self) -> Duration {
        Duration::from_millis(self.log_limit_ms)
    }
}

fn public_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    if host.is_none_or(str::is_empty) || !url.chars().all(|c| c.is_ascii_graphic()) {
        return Err("expected an address such as https://blog.example.org".to_owned());
    }
    Ok(url.to_owned())
}

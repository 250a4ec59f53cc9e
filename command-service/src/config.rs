//! Every setting, with its default and its reason.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use domain::{AuthorId, Partitions};
use http_api::{AuthArgs, CorsArgs};
use service_runtime::{ConnectionArgs, DrainArgs, Secret, TelemetryArgs};

use crate::relay::default_min_in_sync;
use crate::store::QueueLimits;

/// Takes commands, records events and publishes them
#[derive(Debug, Clone, Parser)]
#[command(name = "command-service", version)]
pub struct Config {
    /// Where the store of events is: postgres://user:password@host:port/name
    #[arg(long, env = "INKSTREAM_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// How many connections to Postgres this process opens at most to load posts; five more are for
    /// recording, publishing and snapshots
    #[arg(
        long,
        env = "INKSTREAM_DATABASE_CONNECTIONS",
        default_value_t = 8,
        value_parser = clap::value_parser!(u32).range(2..=1000),
    )]
    pub database_connections: u32,

    /// Where the views are, whose progress a client may wait for: redis://host:port; a Redis Cluster by some of
    /// its nodes: redis+cluster://user:password@host:port,host:port
    #[arg(long, env = "INKSTREAM_REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// What all keys in Redis begin with
    #[arg(long, env = "INKSTREAM_REDIS_PREFIX", default_value = "inkstream")]
    pub redis_prefix: String,

    /// Brokers by which Kafka is found: host:port, separated by commas
    #[arg(long, env = "INKSTREAM_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// The topic that carries the events
    #[arg(long, env = "INKSTREAM_KAFKA_TOPIC", default_value = "inkstream.events")]
    pub kafka_topic: String,

    /// How many brokers keep a copy of the topic, if it has to be created
    #[arg(
        long,
        env = "INKSTREAM_KAFKA_REPLICATION",
        default_value_t = 1,
        value_parser = clap::value_parser!(i32).range(1..=100),
    )]
    pub kafka_replication: i32,

    /// Number of brokers that must have a message before it counts as published, if the topic has to be created
    /// [default: half of INKSTREAM_KAFKA_REPLICATION, rounded up]
    #[arg(
        long,
        env = "INKSTREAM_KAFKA_MIN_INSYNC_REPLICAS",
        value_parser = clap::value_parser!(i32).range(1..=100),
    )]
    pub kafka_min_insync_replicas: Option<i32>,

    /// Where commands are taken
    #[arg(long, env = "INKSTREAM_HTTP_ADDRESS", default_value = "127.0.0.1:8080")]
    pub http_address: SocketAddr,

    /// Where health and metrics are told, apart from the world
    #[arg(long, env = "INKSTREAM_OPS_ADDRESS", default_value = "127.0.0.1:9080")]
    pub ops_address: SocketAddr,

    /// Where readers find the pages, for the Location of what was made
    #[arg(
        long,
        env = "INKSTREAM_PUBLIC_URL",
        default_value = "http://127.0.0.1:8081",
        value_parser = public_url,
    )]
    pub public_url: String,

    /// Keep the cookie with the consistency token from plain connections
    #[arg(
        long,
        env = "INKSTREAM_SECURE_COOKIE",
        default_value_t = false,
        action = clap::ArgAction::Set,
    )]
    pub secure_cookie: bool,

    /// How many seconds a command may take; what its client prefers to wait for the views comes on top
    #[arg(
        long,
        env = "INKSTREAM_REQUEST_SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=300),
    )]
    pub request_seconds: u64,

    /// How many KiB of commits may wait for Postgres before further ones are turned away
    #[arg(
        long,
        env = "INKSTREAM_QUEUE_KIB",
        default_value_t = 16_384,
        // One commit may be as large as a request's body.
        value_parser = clap::value_parser!(u32).range(2048..),
    )]
    pub queue_kib: u32,

    /// How many milliseconds a commit may have to wait for Postgres, reckoned by what waits already, before
    /// further ones are turned away
    #[arg(
        long,
        env = "INKSTREAM_QUEUE_MS",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(10..=60_000),
    )]
    pub queue_ms: u64,

    /// Maximum size of all requests in flight, in KiB, as far as their bodies have arrived; further ones are
    /// answered 503, and 429 if one author takes more than a quarter of it
    #[arg(
        long,
        env = "INKSTREAM_REQUESTS_KIB",
        default_value_t = 131_072,
        // One request may have a body of 1 MiB.
        value_parser = clap::value_parser!(u32).range(2048..),
    )]
    pub requests_kib: u32,

    /// How many KiB of memory are for aggregates used lately, which then need no reading
    #[arg(long, env = "INKSTREAM_RECENT_KIB", default_value_t = 16_384)]
    pub recent_kib: u32,

    /// For how many hours the answer to a command is kept under its Idempotency-Key
    #[arg(
        long,
        env = "INKSTREAM_KEY_HOURS",
        default_value_t = 24,
        value_parser = clap::value_parser!(u32).range(1..=8760),
    )]
    pub key_hours: u32,

    /// For how many seconds the relay holds its lease: this long nothing is published after the
    /// process that held it dies
    #[arg(
        long,
        env = "INKSTREAM_LEASE_SECONDS",
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(1..=300),
    )]
    pub lease_seconds: u64,

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
    pub fn request_limit(&self) -> Duration {
        Duration::from_secs(self.request_seconds)
    }

    pub fn queue_limits(&self) -> QueueLimits {
        QueueLimits { kib: self.queue_kib, wait: Duration::from_millis(self.queue_ms) }
    }

    pub fn min_in_sync(&self) -> i32 {
        self.kafka_min_insync_replicas
            .unwrap_or_else(|| default_min_in_sync(self.kafka_replication))
    }

    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds)
    }
}

/// Brings the tables up to date, and creates the store if there is none
#[derive(Debug, Clone, Parser)]
#[command(name = "migrate")]
pub struct MigrateArgs {
    /// Where the store of events is: postgres://user:password@host:port/name
    #[arg(long, env = "INKSTREAM_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// Into how many equal parts a new store is divided, for good [default: 16]
    #[arg(long, value_parser = partitions)]
    pub partitions: Option<Partitions>,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Begins a new life of the store, after Postgres came back from a backup at an earlier state
#[derive(Debug, Clone, Parser)]
#[command(name = "new-incarnation")]
pub struct IncarnationArgs {
    /// Where the store of events is: postgres://user:password@host:port/name
    #[arg(long, env = "INKSTREAM_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Prints a bearer token, and nothing else
#[derive(Debug, Clone, Parser)]
#[command(name = "token")]
pub struct TokenArgs {
    /// The id of the author it speaks for
    #[arg(long)]
    pub author: AuthorId,

    /// The name the author is shown by
    #[arg(long)]
    pub name: Option<String>,

    /// For how many seconds it is good
    #[arg(long, default_value_t = 86_400)]
    pub seconds: u64,

    #[command(flatten)]
    pub auth: AuthArgs,
}

/// What the process is started for.
#[derive(Debug, Clone)]
pub enum Command {
    Serve(Box<Config>),
    Migrate(MigrateArgs),
    NewIncarnation(IncarnationArgs),
    Token(TokenArgs),
}

impl Command {
    /// Reads the command line and the environment; ends the process if they cannot be read.
    pub fn parse() -> Self {
        Self::try_parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    pub fn try_parse_from<T: Into<std::ffi::OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        // A derived enum of subcommands would either hide the settings of the service behind one,
        // or demand them of all.
        let matches = Config::command()
            .subcommands([MigrateArgs::command(), IncarnationArgs::command(), TokenArgs::command()])
            .subcommand_negates_reqs(true)
            .try_get_matches_from(words)?;
        match matches.subcommand() {
            Some(("migrate", matches)) => MigrateArgs::from_arg_matches(matches).map(Self::Migrate),
            Some(("new-incarnation", matches)) => {
                IncarnationArgs::from_arg_matches(matches).map(Self::NewIncarnation)
            }
            Some((_token, matches)) => TokenArgs::from_arg_matches(matches).map(Self::Token),
            None => Config::from_arg_matches(&matches).map(|config| Self::Serve(Box::new(config))),
        }
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

fn partitions(text: &str) -> Result<Partitions, String> {
    let count = text.parse().ok().filter(|count| *count <= 1024);
    count.and_then(Partitions::new).ok_or_else(|| "expected a number from 1 to 1024".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_needs_to_be_told_where_its_servers_are() {
        let Ok(Command::Serve(config)) =
            parse("--database-url=postgres://x --redis-url=redis://z --kafka-brokers=y:1")
        else {
            panic!("the settings were refused")
        };
        assert_eq!(config.database_url.reveal(), "postgres://x");
        assert_eq!(config.kafka_topic, "inkstream.events");
        assert_eq!(config.request_limit(), Duration::from_secs(10));
        assert!(!format!("{config:?}").contains("postgres://x"));
        for missing in ["--database-url=postgres://x", "--kafka-brokers=y:1 --redis-url=z"] {
            assert!(refused(missing).contains("required"));
        }
    }

    #[test]
    fn a_bad_setting_is_refused_by_name() {
        for bad in [
            "--request-seconds=0",
            "--request-seconds=soon",
            "--http-address=here",
            "--public-url=blog.example.org",
            "--public-url=https://",
            "--cors-origins=blog.example.org",
            "--queue-kib=1",
            "--queue-ms=0",
            "--requests-kib=1",
            "--connections=1",
            "--database-connections=0",
            "--drain-seconds=0",
            "--kafka-min-insync-replicas=0",
            "--log-format=xml",
            "--jwt-algorithm=HS256",
        ] {
            let refused =
                refused(&format!("--database-url=x --redis-url=z --kafka-brokers=y {bad}"));
            let name = bad.split('=').next().unwrap();
            assert!(refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn the_public_address_ends_without_a_slash() {
        assert_eq!(public_url("https://b.example/").unwrap(), "https://b.example");
    }

    #[test]
    fn a_subcommand_needs_its_own_settings_only() {
        let migrate = parse("migrate --database-url=postgres://x --partitions=4");
        assert!(matches!(migrate, Ok(Command::Migrate(args)) if args.partitions.is_some()));
        let token = parse("token --author=anne --name=Anne");
        assert!(matches!(token, Ok(Command::Token(args)) if args.seconds == 86_400));
        for bad in [
            "migrate",
            "migrate --database-url=x --partitions=0",
            "migrate --database-url=x --partitions=1025",
            "token",
            "token --author=a/b",
        ] {
            assert!(parse(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn help_lists_every_setting_and_subcommand() {
        let help = refused("--help");
        for word in ["INKSTREAM_DATABASE_URL", "INKSTREAM_JWT_SECRET", "migrate", "token"] {
            assert!(help.contains(word), "{word} is missing from\n{help}");
        }
    }

    fn parse(words: &str) -> Result<Command, clap::Error> {
        Command::try_parse_from(["command-service"].into_iter().chain(words.split(' ')))
    }

    fn refused(words: &str) -> String {
        parse(words).unwrap_err().to_string()
    }
}

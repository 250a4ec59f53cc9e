//! Every setting of the projector, with its default and its reason.

use std::net::SocketAddr;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use domain::{Position, PostId};
use service_runtime::{DrainArgs, Secret, TelemetryArgs};

/// Keeps the views in Redis up to date with the log of events.
#[derive(Debug, Clone, Parser)]
#[command(name = "projector", version)]
pub struct Config {
    #[command(flatten)]
    pub store: StoreArgs,

    /// Kafka's bootstrap servers, `host:port`, separated by commas
    #[arg(long, env = "INKSTREAM_KAFKA_BROKERS")]
    pub kafka_brokers: String,

    /// The topic that the log is carried to
    #[arg(long, env = "INKSTREAM_KAFKA_TOPIC", default_value = "inkstream.events")]
    pub kafka_topic: String,

    /// The consumer group; all projectors of one key space share it
    #[arg(long, env = "INKSTREAM_KAFKA_GROUP", default_value = "inkstream-projector")]
    pub kafka_group: String,

    /// The topic that messages are copied to which are not ours, or are damaged; made when first needed
    #[arg(long, env = "INKSTREAM_UNDECODABLE_TOPIC", default_value = "inkstream.undecodable")]
    pub undecodable_topic: String,

    /// How many brokers keep a copy of that topic, if it has to be created
    #[arg(
        long,
        env = "INKSTREAM_KAFKA_REPLICATION",
        default_value_t = 1,
        value_parser = clap::value_parser!(i32).range(1..=100),
    )]
    pub kafka_replication: i32,

    /// How long a partition may stand still below the head of its log, in milliseconds, before it is read
    /// from Postgres instead of Kafka
    #[arg(long, env = "INKSTREAM_PATIENCE_MS", default_value_t = 2000)]
    pub patience_ms: u64,

    /// Where `/health/live`, `/health/ready` and `/metrics` are served
    #[arg(long, env = "INKSTREAM_OPS_ADDRESS", default_value = "127.0.0.1:9082")]
    pub ops_address: SocketAddr,

    /// How many pages of the active views are held against the log in a minute, all the time
    #[arg(
        long,
        env = "INKSTREAM_VERIFY_PAGES_A_MINUTE",
        default_value_t = 60,
        value_parser = number(0..=100_000),
    )]
    pub verify_pages_a_minute: u32,

    #[command(flatten)]
    pub rebuild: RebuildArgs,

    #[command(flatten)]
    pub drain: DrainArgs,
}

/// Where the log and the views are, and where to say what is done.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// Where the log of events is: a `postgres://` URL
    #[arg(long, env = "INKSTREAM_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,

    /// Where the views are: redis://user:password@host:port; a Redis Cluster by some of its nodes:
    /// redis+cluster://user:password@host:port,host:port
    #[arg(long, env = "INKSTREAM_REDIS_URL", hide_env_values = true)]
    pub redis_url: Secret,

    /// What all keys in Redis begin with
    #[arg(long, env = "INKSTREAM_REDIS_PREFIX", default_value = "inkstream")]
    pub redis_prefix: String,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// How the views are made anew, by whom and whenever that is.
#[derive(Debug, Clone, Args)]
pub struct RebuildArgs {
    /// How many parts of the log are folded at the same time by a rebuild
    #[arg(
        long = "rebuild-lanes",
        env = "INKSTREAM_REBUILD_LANES",
        default_value_t = 2,
        value_parser = number(1..=64),
    )]
    pub lanes: u32,

    /// How much of the time each of them works, in percent; the rest is left to readers and writers
    #[arg(
        long = "rebuild-share",
        env = "INKSTREAM_REBUILD_SHARE",
        default_value_t = 50,
        value_parser = clap::value_parser!(u8).range(1..=100),
    )]
    pub share: u8,

    /// About how many events a rebuild writes before it notes how far it is: what one that is killed does twice
    #[arg(
        long = "rebuild-part-events",
        env = "INKSTREAM_REBUILD_PART_EVENTS",
        default_value_t = 5000,
        value_parser = number(1..=1_000_000),
    )]
    pub part_events: u32,

    /// How many pages a rebuild sends to Redis at once, fewer if they have more than 2 MiB together
    #[arg(
        long = "rebuild-batch-pages",
        env = "INKSTREAM_REBUILD_BATCH_PAGES",
        default_value_t = 500,
        value_parser = number(1..=5000),
    )]
    pub batch_pages: u32,

    #[command(flatten)]
    pub keep: KeepArgs,

    /// How many pages of a new generation are held against the log before readers are switched to it
    #[arg(
        long = "rebuild-verify-pages",
        env = "INKSTREAM_REBUILD_VERIFY_PAGES",
        default_value_t = 1000,
        value_parser = number(0..=1_000_000),
    )]
    pub verify_pages: u32,
}

/// What is left of the past after a switch.
#[derive(Debug, Clone, Args)]
pub struct KeepArgs {
    /// How many generations that were active before are kept up to date, for a way back
    #[arg(
        long = "keep-generations",
        env = "INKSTREAM_KEEP_GENERATIONS",
        default_value_t = 1,
        value_parser = number(0..=10),
    )]
    pub keep: u32,
}

/// Looks after pages that were set aside, because an event of theirs cannot be folded
#[derive(Debug, Clone, Parser)]
#[command(name = "quarantine")]
pub struct QuarantineArgs {
    #[command(flatten)]
    pub store: StoreArgs,

    #[command(subcommand)]
    pub action: QuarantineAction,
}

/// What is to be done with pages that were set aside.
#[derive(Debug, Clone, Subcommand)]
pub enum QuarantineAction {
    /// Lists the events for which pages are set aside, or that are left out for good
    List,
    /// Shows an event on record as it is stored, and its page as readers see it
    Show {
        /// The id of the post, or the position of the event
        which: Which,
    },
    /// Folds pages anew with this program, and releases those that it can read; fails if it cannot read one
    Retry {
        /// The id of the post
        #[arg(required_unless_present = "all")]
        post_id: Option<PostId>,
        /// All that are set aside
        #[arg(long, conflicts_with = "post_id")]
        all: bool,
    },
    /// Leaves an event out for good, in this program and all that come, and folds its page without it
    Discard {
        /// The position of the event
        #[arg(value_parser = position)]
        position: Position,
    },
}

/// A page by its post, or one of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Post(PostId),
    Event(Position),
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(id) => Ok(Self::Post(id)),
            Err(_) => position(text).map(Self::Event),
        }
    }
}

fn position(text: &str) -> Result<Position, String> {
    let position = text.parse().ok().filter(|position| *position > 0);
    position.map(Position).ok_or_else(|| "expected the position of an event".to_owned())
}

/// Reads a number of a range.
pub(crate) fn number(range: std::ops::RangeInclusive<u64>) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    const TOOLS: [&str; 7] =
        ["rebuild", "rollback", "generations", "abandon", "verify", "show", "quarantine"];
    const SERVERS: &str = "--database-url=postgres://x --redis-url=redis://y";

    #[test]
    fn a_projector_needs_to_be_told_where_its_servers_are() {
        let Ok(Command::Project(config)) = parse(&format!("{SERVERS} --kafka-brokers=z:1")) else {
            panic!("the settings were refused")
        };
        assert_eq!(config.undecodable_topic, "inkstream.undecodable");
        assert!(refused(SERVERS).contains("--kafka-brokers"));
        let bad = refused(&format!("{SERVERS} --kafka-brokers=z --kafka-replication=0"));
        assert!(bad.contains("--kafka-replication"), "{bad}");
    }

    #[test]
    fn a_page_in_quarantine_is_named_by_its_post_or_by_an_event() {
        let id = "0192f0c1-2d3e-7f4a-8b5c-6d7e8f901234";
        assert_eq!("7".parse(), Ok(Which::Event(Position(7))));
        assert_eq!(id.parse(), Ok(Which::Post(id.parse().unwrap())));
        let quarantine = |words: &str| parse(&format!("quarantine {SERVERS} {words}"));
        for words in ["list", "retry --all", "discard 7", &format!("retry {id}"), "show 7"] {
            assert!(matches!(quarantine(words), Ok(Command::Quarantine(_))), "{words}");
        }
        for words in ["", "show", "show 0", "retry", "retry 7", "discard", "discard x"] {
            assert!(quarantine(words).is_err(), "{words} was accepted");
        }
        assert!(quarantine(&format!("retry --all {id}")).is_err());
    }

    #[test]
    fn help_lists_every_setting_and_subcommand() {
        let help = refused("--help");
        for word in ["INKSTREAM_UNDECODABLE_TOPIC", "INKSTREAM_PATIENCE_MS"].iter().chain(&TOOLS) {
            assert!(help.contains(word), "{word} is missing from\n{help}");
        }
        let help = refused("quarantine --help");
        for word in ["INKSTREAM_REDIS_URL", "list", "show", "retry", "discard"] {
            assert!(help.contains(word), "{word} is missing from\n{help}");
        }
    }

    #[test]
    fn a_setting_before_a_subcommand_is_refused() {
        for tool in TOOLS {
            let said = refused(&format!("--redis-prefix=x {tool}"));
            assert!(said.contains("cannot be used with '--redis-prefix"), "{said}");
        }
    }

    fn parse(words: &str) -> Result<Command, clap::Error> {
        Command::try_parse_from(["projector"].into_iter().chain(words.split_whitespace()))
    }

    fn refused(words: &str) -> String {
        parse(words).unwrap_err().to_string()
    }
}

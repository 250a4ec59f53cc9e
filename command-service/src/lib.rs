//! Takes commands, records events, publishes them.

pub mod config;
pub mod incarnation;
pub mod migrate;
pub mod token;

mod answer;
mod caller;
pub mod execute;
mod posts;
mod refusal;
pub mod relay;
mod requests;
mod routes;
mod service;
pub mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_log::{EventLog, PoolSettings};
use http_api::TokenVerifier;
use service_runtime::{Check, DrainArgs, Ops, Readiness, Server, Tasks};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use config::Config;

use execute::Posts;
use relay::{Relay, RelaySettings, Topic};
use service::Service;
use store::{Recent, Store, WriterTask};

/// What Postgres calls us.
const NAME: &str = "command-service";
/// How long we wait for a Postgres that is only starting.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// All that runs in a process of this service.
#[derive(Debug)]
pub struct App {
    http: Server,
    writer: WriterTask,
    relay: Relay,
    watch: Watch,
    ops: Ops,
    readiness: Readiness,
    drain: DrainArgs,
}

impl App {
    /// Connects to what it needs and binds its ports.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let readiness = Readiness::new();
        let verifier = TokenVerifier::new(&config.auth)?;
        let (posts, writer, relay, watch) = open(&config, &readiness).await?;
        let service = Service { posts, verifier, public_url: config.public_url.as_str().into() };
        let routes = routes::routes(service, config.request_limit());
        let requests_end_within = config.drain.limit_for_requests();
        let http = Server::bind(config.http_address, routes, requests_end_within)
            .await
            .context("while opening the port for commands")?;
        let ops = Ops::bind(config.ops_address, readiness.clone()).await?;
        Ok(Self { http, writer, relay, watch, ops, readiness, drain: config.drain })
    }

    /// Where commands are taken.
    pub fn address(&self) -> SocketAddr {
        self.http.address()
    }

    pub fn ops_address(&self) -> SocketAddr {
        self.ops.address()
    }

    /// Serves until `shutdown` completes or a task ends, then lets work in hand finish.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut tasks = Tasks::new(self.drain, &self.readiness);
        tasks.spawn("http", |stop| self.http.run(stop));
        tasks.spawn("relay", |stop| self.relay.run(stop));
        tasks.spawn("watch", |stop| self.watch.run(stop));
        // The last requests still have commits to make, and somebody may ask how far we are. The writer
        // needs no telling: it ends when nobody is left who could hand in a commit.
        tasks.spawn_last("writer", |_| self.writer.run());
        tasks.spawn_last("ops", |stop| self.ops.run(stop));
        tasks.run_until(shutdown).await
    }
}

/// The path of a command through this process: what decides, what records, what carries on.
async fn open(
    config: &Config,
    readiness: &Readiness,
) -> anyhow::Result<(Posts, WriterTask, Relay, Watch)> {
    // Connections of their own, so that neither loading nor publishing ever keeps a commit waiting.
    let loads = pool(config, config.database_connections, &[])?;
    // A cursor that is lost in a crash of Postgres costs a few messages sent twice.
    let cursor = pool(config, 2, &[("synchronous_commit", "off")])?;
    let store = event_log::open_within(START_PATIENCE, &loads).await?;
    let partitions = store.partitions;
    let commits = event_log::address(config.database_url.reveal(), NAME)?;

    let recorded = Arc::new(Notify::new());
    let (writer, writer_task) = store::writer(commits, config.queue_kib, Arc::clone(&recorded));
    let posts =
        Posts::new(Store::new(loads.clone(), writer, partitions), Recent::new(config.recent_kib));
    let settings = RelaySettings {
        topic: Topic {
            brokers: config.kafka_brokers.clone(),
            name: config.kafka_topic.clone(),
            partitions: partitions.count(),
            replication: config.kafka_replication,
        },
        holder: format!("{}, process {}", config.http_address, std::process::id()),
        lease: config.lease(),
    };
    let relay_log = EventLog::new(cursor.clone(), partitions);
    let relay = Relay::new(relay_log, cursor, recorded, settings);
    let watch =
        Watch { log: EventLog::new(loads, partitions), postgres: readiness.check("postgres") };
    Ok((posts, writer_task, relay, watch))
}

fn pool(config: &Config, connections: u32, options: &[(&str, &str)]) -> anyhow::Result<PgPool> {
    let acquire_limit = Duration::from_secs(3);
    let settings = PoolSettings { name: NAME, connections, acquire_limit, options };
    event_log::pool(config.database_url.reveal(), settings)
}

/// Asks Postgres once a second whether it is there.
#[derive(Debug)]
struct Watch {
    log: EventLog,
    postgres: Check,
}

impl Watch {
    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = tokio::time::interval(Duration::from_secs(1));
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            match stop.run_until_cancelled(self.log.head()).await {
                None => {}
                Some(Ok(head)) => {
                    metrics::gauge!("log_head").set(head.0 as f64);
                    self.postgres.ready();
                }
                Some(Err(error)) => self.postgres.not_ready(format!("{error:#}")),
            }
        }
        Ok(())
    }
}

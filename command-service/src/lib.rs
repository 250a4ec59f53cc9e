//! Takes commands, records events, publishes them.

pub mod config;
pub mod incarnation;
pub mod migrate;
pub mod token;

mod answer;
mod caller;
mod clock;
pub mod execute;
pub mod expiry;
mod in_flight;
pub mod metrics;
mod openapi;
mod postgres;
mod posts;
mod preconditions;
mod refusal;
pub mod relay;
mod requests;
mod routes;
mod service;
pub mod store;
mod waiting;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use domain::post::Post;
use event_log::{EventLog, Probe};
use http_api::{ConsistencyTokens, Edge, TokenVerifier};
use read_model::{KeySpace, Views, WatchTask};
use service_runtime::{Limits, Ops, Readiness, Server, Tasks, progress};
use tokio::sync::Notify;

pub use config::Config;
pub use metrics::METRICS;

use clock::Clock;
use execute::Posts;
use expiry::Expiry;
use in_flight::InFlight;
use postgres::{ReadOnly, Watch};
use relay::{Relay, RelayHealth, RelaySettings, Topic};
use service::Service;
use store::{Recent, SnapshotTask, Store, WriterTask};

/// How long we wait for a Postgres that is only starting.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Maximum number of requests that wait for the views; others are answered at once.
const MAX_WAITERS: usize = 10_000;
/// No look at the watermarks takes longer.
const REDIS_LIMIT: Duration = Duration::from_millis(500);

/// All that runs in a process of this service.
#[derive(Debug)]
pub struct App {
    http: Server<Edge<Router>>,
    writer: WriterTask,
    snapshots: SnapshotTask,
    relay: Relay,
    watermarks: WatchTask,
    watch: Watch,
    expiry: Expiry,
    clock: Clock,
    ops: Ops,
    tasks: Tasks,
}

impl App {
    /// Connects to what it needs and binds its ports.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        service_runtime::describe(METRICS)?;
        service_runtime::describe(http_api::layers::METRICS)?;
        let readiness = Readiness::new();
        let tasks = Tasks::new(config.drain, &readiness);
        let postgres = readiness.check("postgres");
        let clock = readiness.check("clock");
        let relay_health = RelayHealth::new(readiness.check("relay"), relay::STANDSTILL_LIMIT);
        // From here on it answers that the process starts, and what it waits for.
        let ops = Ops::bind(config.ops_address, readiness).await?;
        anyhow::ensure!(
            config.min_in_sync() <= config.kafka_replication,
            "INKSTREAM_KAFKA_MIN_INSYNC_REPLICAS exceeds INKSTREAM_KAFKA_REPLICATION"
        );
        let verifier = TokenVerifier::new(&config.auth)?;
        // Connections of their own, so that neither loading nor publishing ever keeps a commit waiting.
        let loads = postgres::pool(&config, config.database_connections, &[])?;
        // A cursor that is lost in a crash of Postgres costs a few messages sent twice.
        let cursor = postgres::pool(&config, 2, &[("synchronous_commit", "off")])?;
        let store = event_log::open_within(START_PATIENCE, &loads, |why| {
            postgres.not_ready(why.to_owned());
        })
        .await
        .context("while opening the store")?;
        let partitions = store.partitions;
        let consistency = ConsistencyTokens::new(store.incarnation, store.token_key.0, partitions);

        let recorded = Arc::new(Notify::new());
        let (commits, writer) = store::writer(
            postgres::address(&config)?,
            config.queue_limits(),
            Arc::clone(&recorded),
        );
        // One connection of their own: neither slow loads nor a standby that is away hold them up.
        let of_snapshots = postgres::pool(&config, 1, &[("synchronous_commit", "off")])?;
        let (snapshot_queue, snapshots) = store::snapshots(of_snapshots);
        let streams = Store::new(loads.clone(), commits, partitions)
            .with_snapshots(snapshot_queue, Post::SHAPE);
        let relay_log = EventLog::new(cursor.clone(), partitions);
        let settings = relay_settings(&config, store);
        let relay = Relay::new(relay_log, cursor, recorded, relay_health.clone(), settings);

        let keys = KeySpace::new(&config.redis_prefix).context("INKSTREAM_REDIS_PREFIX")?;
        let views = Views::new(config.redis_url.reveal(), keys, partitions, REDIS_LIMIT)
            .context("INKSTREAM_REDIS_URL cannot be used")?;
        let (waiting, watermarks) = read_model::waiting(views.clone(), MAX_WAITERS);
        let read_only = ReadOnly::default();
        let service = Service {
            posts: Posts::new(streams, Recent::new(config.recent_kib)),
            log: EventLog::new(loads.clone(), partitions),
            verifier,
            waiting,
            partitions,
            read_only: read_only.clone(),
            consistency: consistency.clone(),
            public_url: config.public_url.as_str().into(),
            secure_cookie: config.secure_cookie,
            command_limit: config.request_limit(),
        };
        // For the body to arrive, for the command, and for the views.
        let request_limit = Limits::BODY + config.request_limit() + waiting::MAX_WAIT;
        let in_flight = InFlight::new(config.requests_kib);
        let routes = routes::routes(service, in_flight, request_limit, &config.cors);
        let limits = Limits::of(config.connections)?;
        let requests_end_within = config.drain.limit_for_requests();
        let http =
            Server::bind(config.http_address, Edge::new(routes), limits, requests_end_within)
                .await
                .context("while opening the port for commands")?;
        let keep = Duration::from_secs(u64::from(config.key_hours) * 3600);
        let expiry = Expiry { pool: loads.clone(), keep };
        let clock = Clock { pool: loads, check: clock };
        let probe = Probe::new(postgres::address(&config)?);
        let watch = Watch { probe, views, consistency, postgres, read_only, relay: relay_health };
        Ok(Self { http, writer, snapshots, relay, watermarks, watch, expiry, clock, ops, tasks })
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
        let mut tasks = self.tasks;
        tasks.spawn("http", |stop| self.http.run(stop));
        tasks.spawn("relay", |stop| self.relay.run(stop));
        tasks.spawn("watch", |stop| self.watch.run(stop));
        tasks.spawn("expiry", |stop| self.expiry.run(stop));
        tasks.spawn("clock", |stop| self.clock.run(stop));
        // The last requests still have commits to make and may wait for the views, and somebody may ask
        // how far we are. The writer needs no telling: it ends when nobody is left who could hand in a
        // commit.
        tasks.spawn_last("writer", |_| self.writer.run());
        tasks.spawn_last("snapshots", |stop| self.snapshots.run(stop));
        tasks.spawn_last("watermarks", |stop| async move {
            stop.run_until_cancelled(self.watermarks.run(progress::tick)).await;
            Ok(())
        });
        tasks.spawn_last("ops", |stop| self.ops.run(stop));
        tasks.run_until(shutdown).await
    }
}

fn relay_settings(config: &Config, store: event_log::Store) -> RelaySettings {
    RelaySettings {
        topic: Topic {
            brokers: config.kafka_brokers.clone(),
            name: config.kafka_topic.clone(),
            partitions: store.partitions.count(),
            replication: config.kafka_replication,
            min_in_sync: config.min_in_sync(),
        },
        holder: format!("{}, process {}", config.http_address, std::process::id()),
        lease: config.lease(),
        look: relay::LOOK,
        topic_check: relay::TOPIC_CHECK_INTERVAL,
    }
}

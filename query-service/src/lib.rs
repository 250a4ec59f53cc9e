//! Answers reads from the views in Redis, and from the log of events wherever they have nothing.

mod config;
mod openapi;
mod routes;

mod lists;
mod posts;

mod answer;
mod cursor;
mod freshness;
mod list_query;

mod reads;
mod standing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_log::{EventLog, PoolSettings};
use http_api::TokenVerifier;
use read_model::{KeySpace, Views};
use service_runtime::{Ops, Readiness, Server, Tasks};
use sqlx::PgPool;

pub use config::Config;
use reads::Reads;
use routes::Service;
use standing::{Standing, Watch};

/// What runs, and how it ends.
#[derive(Debug)]
pub struct App {
    http: Server,
    ops: Ops,
    watch: Watch,
    tasks: Tasks,
}

impl App {
    /// Opens everything that is needed; Redis may come later.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let tokens = TokenVerifier::new(&config.auth)?;
        let readiness = Readiness::new();
        let tasks = Tasks::new(config.drain, &readiness);
        let ops = Ops::bind(config.ops_address, readiness.clone()).await?;

        let pool = pool(&config)?;
        let patience = Duration::from_secs(config.start_seconds);
        let store =
            event_log::open_within(patience, &pool).await.context("while opening the store")?;
        let standing = Standing::new(store);
        let keys = KeySpace::new(&config.redis_prefix).context("INKSTREAM_REDIS_PREFIX")?;
        let url = config.redis_url.reveal();
        let views = Views::new(url, keys, store.partitions, config.redis_limit())
            .context("INKSTREAM_REDIS_URL cannot be used")?;

        let log = EventLog::new(pool, store.partitions);
        let reads = Reads::new(views.clone(), log.clone(), standing.clone(), &config);
        let service = Service { reads: Arc::new(reads), tokens };
        let request_limit = Duration::from_secs(config.request_seconds);
        let router = routes::routes(service, request_limit, &config.cors);
        let http =
            Server::bind(config.http_address, router, config.drain.limit_for_requests()).await?;
        let watch = Watch { standing, views, log, check: readiness.check("reads") };
        Ok(Self { http, ops, watch, tasks })
    }

    /// Where readers are answered.
    pub fn address(&self) -> SocketAddr {
        self.http.address()
    }

    pub fn ops_address(&self) -> SocketAddr {
        self.ops.address()
    }

    /// Serves until `shutdown` completes or a task ends, then lets work in hand finish.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { http, ops, watch, mut tasks } = self;
        tasks.spawn("http", |stop| http.run(stop));
        tasks.spawn("watch", |stop| watch.run(stop));
        tasks.spawn_last("ops", |stop| ops.run(stop));
        tasks.run_until(shutdown).await
    }
}

fn pool(config: &Config) -> anyhow::Result<PgPool> {
    let settings = PoolSettings {
        name: "query-service",
        connections: config.database_connections,
        acquire_limit: config.log_limit(),
        options: &[],
    };
    event_log::pool(config.database_url.reveal(), settings)
}

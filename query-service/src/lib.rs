//! Answers reads from the views in Redis, and from the log of events wherever they have nothing.

mod config;
mod openapi;
mod routes;

mod front;
mod lists;
mod posts;

mod browser;
mod documents;
mod feed;
mod sitemap;
mod xml;

mod accept;
mod answer;
mod breaker;
mod cursor;
mod demand;
mod freshness;
mod generation;
mod heads;
mod list_query;
mod post;
mod reader;
mod site;

mod metrics;
mod page_cache;

mod reads;
mod standing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_log::{EventLog, Generations, PoolSettings, Probe};
use http_api::TokenVerifier;
use http_api::layers;
use read_model::{Fold, KeySpace, Views, WatchTask, fold_page};
use service_runtime::{Limits, Ops, Readiness, Server, Tasks, progress};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

pub use config::Config;
use front::Front;
use generation::Follow;
pub use metrics::METRICS;
use page_cache::{Listener, PageCache};
use reads::Reads;
use routes::Service;
use site::Site;
use standing::{Standing, Watch};

/// Maximum number of reads that wait for the views because of a consistency token; others are answered at once.
const MAX_WAITERS: usize = 1000;

/// What runs, and how it ends.
#[derive(Debug)]
pub struct App {
    http: Server<Front>,
    ops: Ops,
    listener: Listener,
    memory: PageCache,
    watch: Watch,
    watermarks: WatchTask,
    generation: Follow,
    tasks: Tasks,
}

impl App {
    /// Opens everything that is needed; Redis may come later.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        Self::build_folding_by(fold_page, config).await
    }

    /// Builds a process whose documents another fold makes: the seam for tests of what a fold may do.
    pub async fn build_folding_by(fold: Fold, config: Config) -> anyhow::Result<Self> {
        service_runtime::describe(layers::METRICS)?;
        service_runtime::describe(METRICS)?;
        let tokens = TokenVerifier::new(&config.auth)?;
        let readiness = Readiness::new();
        let tasks = Tasks::new(config.drain, &readiness);
        let reads_check = readiness.check("reads");
        // From here on it answers that the process starts, and what it waits for.
        let ops = Ops::bind(config.ops_address, readiness).await?;

        let pool = pool(&config)?;
        let patience = Duration::from_secs(config.start_seconds);
        let waits = |why: &str| reads_check.not_ready(why.to_owned());
        let store = event_log::open_within(patience, &pool, waits);
        let store = store.await.context("while opening the store")?;
        let standing = Standing::new(store, &config);
        let keys = KeySpace::new(&config.redis_prefix).context("INKSTREAM_REDIS_PREFIX")?;
        let url = config.redis_url.reveal();
        let views = Views::new(url, keys, store.partitions, config.redis_limit())
            .context("INKSTREAM_REDIS_URL cannot be used")?
            .folding_by(fold);

        let generations = Generations::new(pool.clone());
        let log = EventLog::new(pool, store.partitions);
        let (waiting, watermarks) = read_model::waiting(views.clone(), MAX_WAITERS);
        let added = layers::added_headers(&config.cors);
        let memory = PageCache::new(&config, standing.clone(), added.clone());
        let withdrawn = memory.withdrawn().clone();
        let reads = Reads::new(views.clone(), log, standing.clone(), waiting, withdrawn, &config);
        let mut generation = Follow::new(views.clone(), memory.clone(), generations);
        generation.ask_postgres().await;
        let service = Service {
            memory: memory.clone(),
            reads: Arc::new(reads),
            tokens,
            consistency: standing.consistency.clone(),
            site: Site::new(&config.public_url),
            feeds: Arc::default(),
            sitemaps: Arc::default(),
        };
        let request_limit = Duration::from_secs(config.request_seconds);
        let router = routes::routes(service.clone(), request_limit, &config.cors);
        let front = Front::new(service, request_limit, added, router);
        let limits = Limits::of(config.connections)?;
        let requests_end_within = config.drain.limit_for_requests();
        let http = Server::bind(config.http_address, front, limits, requests_end_within).await?;
        let listener = Listener { memory: memory.clone(), announcements: views.announcements() };
        let probe = Probe::new(event_log::address(config.database_url.reveal(), NAME)?);
        let watch = Watch::new(standing, views, probe, reads_check);
        Ok(Self { http, ops, listener, memory, watch, watermarks, generation, tasks })
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
        let Self { http, ops, listener, memory, watch, watermarks, generation, mut tasks } = self;
        let watch_redis = watch.clone();
        tasks.spawn("http", |stop| http.run(stop));
        tasks.spawn("listener", |stop| listener.run(stop));
        tasks.spawn("redis", |stop| watch_redis.watch_redis(stop));
        tasks.spawn("postgres", |stop| watch.watch_postgres(stop));
        tasks.spawn("memory", |stop| measure(memory, stop));
        tasks.spawn("generation", |stop| generation.run(stop));
        tasks.spawn_last("watermarks", |stop| async move {
            stop.run_until_cancelled(watermarks.run(progress::tick)).await;
            Ok(())
        });
        tasks.spawn_last("ops", |stop| ops.run(stop));
        tasks.run_until(shutdown).await
    }
}

/// Tells once a second how full the memory is.
async fn measure(memory: PageCache, stop: CancellationToken) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(Duration::from_secs(1));
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        progress::tick();
        memory.measure();
    }
    Ok(())
}

/// The name that Postgres shows for our connections.
const NAME: &str = "query-service";

fn pool(config: &Config) -> anyhow::Result<PgPool> {
    let settings = PoolSettings {
        name: NAME,
        connections: config.database_connections,
        acquire_limit: config.log_limit(),
        options: &[],
        for_scans: false,
    };
    event_log::pool(config.database_url.reveal(), settings)
}

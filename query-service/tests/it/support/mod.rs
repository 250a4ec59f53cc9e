//! A blog to read: a query service with a store and views of its own, and a hand in place of the command
//! service and the projector.

mod log;
mod reader;
mod views;

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser as _;
use domain::{AuthorId, Partitions, Position, PostId};
use event_log::Store;
use http_api::{ConsistencyToken, ConsistencyTokens};
use query_service::{App, Config};
use read_model::{Fold, KeySpace, Views, fold_page};
use sqlx::PgPool;
use testkit::{TestDatabase, unique_name};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::ground;

pub(crate) use reader::{Answer, Reader, from_memory};

pub(crate) const SECRET: &str = "a secret of more than thirty-two bytes";

pub(crate) struct Blog {
    /// Past any proxy.
    pub(crate) pool: PgPool,
    pub(crate) views: Views,
    pub(crate) settings: Settings,
    store: Store,
    addresses: Option<(SocketAddr, SocketAddr)>,
    _stop: Option<DropGuard>,
}

/// Where the servers are, as the service is told.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    pub(crate) prefix: String,
    /// What it is told beyond that.
    pub(crate) options: Vec<&'static str>,
}

/// On a busy machine a server that is well may be silent for a while. Only where a test is about one that is
/// not does the service wait as briefly as it does otherwise.
const PATIENT: [(&str, &str); 4] = [
    ("--redis-limit-ms", "10000"),
    ("--log-limit-ms", "20000"),
    ("--request-seconds", "40"),
    ("--ops-address", "127.0.0.1:0"),
];

/// Every answer comes from a server.
pub(crate) const WITHOUT_MEMORY: [&str; 2] = ["--memory-mib", "0"];

impl Blog {
    /// On the servers that all tests of a program share.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_without_memory() -> Self {
        Self::start_with(&WITHOUT_MEMORY).await
    }

    pub(crate) async fn start_with(options: &[&'static str]) -> Self {
        let database = database().await;
        let url = database.url();
        Self::start_behind(url, url, &ground::url().await, options).await
    }

    /// With a service that is told these addresses; `direct_url` leads to the same database.
    pub(crate) async fn start_behind(
        direct_url: &str,
        database_url: &str,
        redis_url: &str,
        options: &[&'static str],
    ) -> Self {
        let mut blog = Self::without_service(direct_url, redis_url).await;
        blog.settings.database_url = database_url.to_owned();
        blog.settings.options = options.to_vec();
        blog.serve_folding_by(fold_page).await;
        blog
    }

    /// With a service whose documents another fold makes, and no memory.
    pub(crate) async fn start_folding_by(fold: Fold) -> Self {
        let database = database().await;
        let mut blog = Self::without_service(database.url(), &ground::url().await).await;
        blog.settings.options = WITHOUT_MEMORY.to_vec();
        blog.serve_folding_by(fold).await;
        blog
    }

    async fn serve_folding_by(&mut self, fold: Fold) {
        let blog = self;
        let app = App::build_folding_by(fold, blog.config()).await.unwrap();
        blog.addresses = Some((app.address(), app.ops_address()));
        let stop = CancellationToken::new();
        tokio::spawn(app.run_until(stop.clone().cancelled_owned()));
        blog._stop = Some(stop.drop_guard());
    }

    /// For a test that starts the service by itself.
    pub(crate) async fn without_service(database_url: &str, redis_url: &str) -> Self {
        let pool = PgPool::connect(database_url).await.unwrap();
        let store = event_log::open(&pool).await.unwrap();
        let settings = Settings {
            database_url: database_url.to_owned(),
            redis_url: redis_url.to_owned(),
            prefix: unique_name("query"),
            options: vec![],
        };
        let views = Views::new(
            redis_url,
            KeySpace::new(&settings.prefix).unwrap(),
            store.partitions,
            Duration::from_secs(30),
        );
        Self { pool, views: views.unwrap(), settings, store, addresses: None, _stop: None }
    }

    /// Where the service is reached.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses.expect("this blog has no service").0
    }

    /// Somebody who reads, without saying who they are.
    pub(crate) fn reader(&self) -> Reader {
        Reader::new(self.address())
    }

    /// A token that demands a position of a post's partition.
    pub(crate) fn token(&self, incarnation: u32, id: PostId, position: Position) -> String {
        let positions = [(self.views.partition_of(id), position)].into();
        self.seal(&ConsistencyToken { incarnation, positions })
    }

    pub(crate) fn seal(&self, token: &ConsistencyToken) -> String {
        let Store { incarnation, token_key, partitions } = self.store;
        ConsistencyTokens::new(incarnation, token_key.0, partitions).seal(token)
    }

    pub(crate) fn ops(&self) -> Reader {
        Reader::new(self.addresses.expect("this blog has no service").1)
    }

    pub(crate) fn config(&self) -> Config {
        let always = [
            "query-service",
            "--database-url",
            &self.settings.database_url,
            "--redis-url",
            &self.settings.redis_url,
            "--redis-prefix",
            &self.settings.prefix,
            "--http-address",
            "127.0.0.1:0",
            "--jwt-secret",
            SECRET,
        ];
        let options = &self.settings.options;
        let unsaid = PATIENT.iter().filter(|(name, _)| !options.contains(name));
        let patient: Vec<_> = unsaid.flat_map(|(name, value)| [*name, *value]).collect();
        Config::parse_from(always.iter().chain(&patient).chain(options))
    }
}

/// A store of four partitions.
pub(crate) async fn database() -> TestDatabase {
    // One template for each run: it must not outlive the migrations it was made by.
    let template = format!("query_service_{}", std::process::id());
    TestDatabase::from_template(&template, create_store).await
}

pub(crate) async fn create_store(url: String) -> Result<(), event_log::StoreError> {
    let pool = PgPool::connect(&url).await?;
    event_log::migrate(&pool).await?;
    event_log::create(&pool, Partitions::new(4).unwrap()).await?;
    pool.close().await;
    Ok(())
}

pub(crate) fn new_id() -> PostId {
    PostId(Uuid::now_v7())
}

pub(crate) fn author(name: &str) -> AuthorId {
    name.parse().unwrap()
}

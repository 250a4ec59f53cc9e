//! Keeps the views in Redis up to date with the log of events: live from Kafka, and from the log itself
//! where Kafka has a gap, is silent, or Redis has lost what it held.

mod apply;
mod config;
mod consumer;
mod halted;
mod recovery;
mod run;

use std::net::SocketAddr;
use std::time::Duration;

use event_log::{EventLog, PoolSettings};
use read_model::{KeySpace, Views};
use service_runtime::{DrainArgs, Ops, Readiness, Tasks};

pub use config::Config;

use crate::apply::Projection;
use crate::consumer::Partitions;
use crate::halted::Halted;
use crate::run::{HeadsTask, ProjectTask};

/// A batch is written in one exchange, which takes Redis longer than a reader would wait.
const REDIS_LIMIT: Duration = Duration::from_secs(5);

/// How long we wait for a Postgres that is only starting.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// All that runs in a process of the projector.
#[derive(Debug)]
pub struct App {
    project: ProjectTask,
    heads: HeadsTask,
    ops: Ops,
    readiness: Readiness,
    drain: DrainArgs,
}

impl App {
    /// Connects to what it needs and binds its port.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let readiness = Readiness::new();
        let settings = PoolSettings {
            name: "projector",
            connections: 4,
            acquire_limit: Duration::from_secs(5),
            options: &[],
        };
        let pool = event_log::pool(config.database_url.reveal(), settings)?;
        let store = event_log::open_within(START_PATIENCE, &pool).await?;
        let log = EventLog::new(pool, store.partitions);
        let keys = KeySpace::new(&config.redis_prefix)?;
        let views = Views::new(config.redis_url.reveal(), keys, store.partitions, REDIS_LIMIT)?;
        let partitions = Partitions::join(
            &config.kafka_brokers,
            &config.kafka_topic,
            &config.kafka_group,
            store.partitions,
        )?;
        let ops = Ops::bind(config.ops_address, readiness.clone()).await?;

        let halted = Halted::new(readiness.check("folds"));
        let (heads, heads_seen) = HeadsTask::new(log.clone(), readiness.check("postgres"));
        let project = ProjectTask {
            projection: Projection::new(log, views, halted),
            partitions,
            heads: heads_seen,
            patience: Duration::from_millis(config.patience_ms),
            redis: readiness.check("redis"),
        };
        Ok(Self { project, heads, ops, readiness, drain: config.drain })
    }

    pub fn ops_address(&self) -> SocketAddr {
        self.ops.address()
    }

    /// Projects until `shutdown` completes or a task ends, then lets the batch in hand finish.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut tasks = Tasks::new(self.drain, &self.readiness);
        tasks.spawn("project", |stop| self.project.run(stop));
        tasks.spawn("heads", |stop| self.heads.run(stop));
        tasks.spawn_last("ops", |stop| self.ops.run(stop));
        tasks.run_until(shutdown).await
    }
}

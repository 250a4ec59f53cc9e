//! Keeps the views in Redis up to date with the log of events: live from Kafka, and from the log itself
//! where Kafka has a gap, is silent, or Redis has lost what it held.

mod apply;
mod away;
mod command;
pub mod config;
mod consumer;
mod halted;
mod metrics;
mod pages;
pub mod quarantine;
pub mod rebuild;
mod recovery;
mod retries;
mod run;
mod runs;
mod show;
mod undecodable;
pub mod verify;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use event_log::{EventLog, Generations, PoolSettings, Probe};
use read_model::{Fold, KeySpace, VIEW_VERSION, Views, fold_page};
use service_runtime::{Ops, Readiness, Tasks};
use tokio::sync::watch;

pub use command::Command;
pub use config::Config;
pub use metrics::METRICS;

use crate::consumer::{Partitions, TopicTask};
use crate::halted::Halted;
use crate::rebuild::Rebuild;
use crate::rebuild::followed::{self, Followed};
use crate::rebuild::keeper::Keeper;
use crate::run::{HeadsTask, ProjectTask};
use crate::undecodable::{CopyTask, CopyTo};
use crate::verify::Trickle;

/// A batch is written in one exchange, which takes Redis longer than a reader would wait.
const REDIS_LIMIT: Duration = Duration::from_secs(5);

/// The name that Postgres shows for our connections.
const NAME: &str = "projector";

/// How long we wait for a Postgres that is only starting.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// All that runs in a process of the projector.
#[derive(Debug)]
pub struct App {
    project: ProjectTask,
    heads: HeadsTask,
    keeper: Keeper,
    trickle: Trickle,
    topic: TopicTask,
    copies: CopyTask,
    ops: Ops,
    tasks: Tasks,
}

impl App {
    /// Connects to what it needs and binds its port.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        Self::build_folding_by(fold_page, config).await
    }

    /// Builds a process whose documents another fold makes: the seam for tests of what a fold may do.
    pub async fn build_folding_by(fold: Fold, config: Config) -> anyhow::Result<Self> {
        service_runtime::describe(METRICS)?;
        let readiness = Readiness::new();
        let tasks = Tasks::new(config.drain, &readiness);
        let postgres = readiness.check("postgres");
        // From here on it answers that the process starts, and what it waits for.
        let ops = Ops::bind(config.ops_address, readiness.clone()).await?;
        let settings = PoolSettings {
            name: NAME,
            // For a build in this process beside what is done all the time.
            connections: 4 + config.rebuild.lanes,
            acquire_limit: Duration::from_secs(5),
            options: &[],
            for_scans: true,
        };
        let pool = event_log::pool(config.store.database_url.reveal(), settings)?;
        let store = event_log::open_within(START_PATIENCE, &pool, |why| {
            postgres.not_ready(why.to_owned());
        });
        let store = store.await.context("while opening the store")?;
        let generations = Generations::new(pool.clone());
        generations.begin_first(VIEW_VERSION).await?;
        let log = EventLog::new(pool, store.partitions);
        let keys = KeySpace::new(&config.store.redis_prefix)?;
        let views =
            Views::new(config.store.redis_url.reveal(), keys, store.partitions, REDIS_LIMIT)?
                .folding_by(fold);
        let kafka = readiness.check("kafka");
        // Known later, and the views do not wait for it.
        kafka.ready();
        let (found, in_topic) = watch::channel(None);
        let topic = TopicTask {
            brokers: config.kafka_brokers.clone(),
            topic: config.kafka_topic.clone(),
            of_the_store: store.partitions,
            kafka,
            found,
        };
        let partitions = Partitions::join(
            &config.kafka_brokers,
            &config.kafka_topic,
            // Each version of the views hears of every event.
            &format!("{}-v{VIEW_VERSION}", config.kafka_group),
            store.partitions,
        )?;

        let halted = Halted::new(readiness.check("folds"));
        let database_url = config.store.database_url.reveal();
        let (heads, heads_seen) = HeadsTask::new(
            Probe::new(event_log::address(database_url, NAME)?),
            log.clone(),
            generations.clone(),
            postgres,
            readiness.check("quarantine"),
        );
        let followed = followed::to_follow(&generations).await?;
        let rebuild = Rebuild {
            log: log.clone(),
            views: views.clone(),
            generations: generations.clone(),
            args: config.rebuild,
            halted: halted.clone(),
            holder: rebuild::holder(),
        };
        let keeper = Keeper { rebuild, check: readiness.check("generation") };
        let trickle = Trickle {
            log: log.clone(),
            views: views.clone(),
            generations,
            pages_a_minute: config.verify_pages_a_minute,
        };
        let copy_to = CopyTo {
            brokers: config.kafka_brokers,
            topic: config.undecodable_topic,
            replication: config.kafka_replication,
        };
        let (copy_task, copies) = CopyTask::new(copy_to, readiness.check("undecodable"));
        let project = ProjectTask {
            followed: Followed::new(log, views, halted, &followed),
            partitions,
            copies,
            heads: heads_seen,
            patience: Duration::from_millis(config.patience_ms),
            redis: readiness.check("redis"),
            in_topic,
            filled: None,
        };
        Ok(Self { project, heads, keeper, trickle, topic, copies: copy_task, ops, tasks })
    }

    pub fn ops_address(&self) -> SocketAddr {
        self.ops.address()
    }

    /// Projects until `shutdown` completes or a task ends, then lets the batch in hand finish.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut tasks = self.tasks;
        tasks.spawn("project", |stop| self.project.run(stop));
        tasks.spawn("heads", |stop| self.heads.run(stop));
        let (watch, watch_filling) = (self.keeper.clone(), self.keeper.clone());
        tasks.spawn("generations", |stop| self.keeper.run(stop));
        tasks.spawn("generation numbers", |stop| watch.watch(stop));
        tasks.spawn("filling numbers", |stop| watch_filling.watch_filling(stop));
        tasks.spawn("verify", |stop| self.trickle.run(stop));
        tasks.spawn("topic", |stop| self.topic.run(stop));
        tasks.spawn("copies", |stop| self.copies.run(stop));
        tasks.spawn_last("ops", |stop| self.ops.run(stop));
        tasks.run_until(shutdown).await
    }
}

//! Which of the servers behind us answer, and in which life the store is: asked all the time, so that
//! readers need not find out one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use domain::Partitions;
use event_log::{EventLog, Store};
use read_model::{Views, ViewsError};
use service_runtime::Check;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use crate::breaker::Breaker;
use crate::page_cache::PageCache;

/// What is known. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    incarnation: Arc<AtomicU32>,
    pub(crate) partitions: Partitions,
    pub(crate) redis: Breaker,
    pub(crate) postgres: Breaker,
}

impl Standing {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            incarnation: Arc::new(AtomicU32::new(store.incarnation)),
            partitions: store.partitions,
            redis: Breaker::new("Redis"),
            postgres: Breaker::new("Postgres"),
        }
    }

    /// The store's life since it last came back from an earlier state.
    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Relaxed)
    }
}

/// Keeps a [`Standing`] up to date, and tells whether reads can be answered.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) standing: Standing,
    pub(crate) views: Views,
    pub(crate) log: EventLog,
    pub(crate) memory: PageCache,
    pub(crate) check: Check,
}

impl Watch {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (redis_answers, postgres_answers) = (AtomicBool::new(false), AtomicBool::new(false));
        let tell = || {
            let answers = |server: &AtomicBool| server.load(Ordering::Relaxed);
            self.tell(answers(&redis_answers), answers(&postgres_answers));
        };
        let redis = self.standing.redis.watch(
            || self.some_views(),
            |answer| {
                redis_answers.store(answer.is_some(), Ordering::Relaxed);
                tell();
            },
        );
        let postgres = self.standing.postgres.watch(
            || self.log.incarnation(),
            |answer| {
                postgres_answers.store(answer.is_some(), Ordering::Relaxed);
                if let Some(incarnation) = answer {
                    self.standing.incarnation.store(incarnation, Ordering::Relaxed);
                }
                tell();
            },
        );
        let watching = async { tokio::join!(redis, postgres, self.measure()) };
        stop.run_until_cancelled(watching).await;
        Ok(())
    }

    /// Whether there are any: where a part of a cluster is away, the rest still helps.
    async fn some_views(&self) -> Result<(), ViewsError> {
        let answers = self.views.watermarks_that_answer().await;
        let mut silent = None;
        for answer in answers {
            match answer {
                Ok(_) => return Ok(()),
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Ok(()), Err)
    }

    /// One of them is enough for pages: warm ones need no Postgres, and none needs Redis.
    fn tell(&self, redis_answers: bool, postgres_answers: bool) {
        match (redis_answers, postgres_answers) {
            (true, true) => self.check.ready(),
            (false, true) => self.check.degraded("Redis does not answer"),
            (true, false) => self.check.degraded("Postgres does not answer"),
            (false, false) => self.check.not_ready("neither Redis nor Postgres answers"),
        }
    }

    async fn measure(&self) {
        let mut every = interval(Duration::from_secs(1));
        loop {
            every.tick().await;
            self.memory.measure();
        }
    }
}

//! Which of the servers behind us answer, and in which life the store is: asked all the time, so that
//! readers need not find out one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use domain::Partitions;
use event_log::{Probe, Store};
use read_model::{Views, ViewsError, Watermark};
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

    /// Whether a watermark vouches for anything: not one of a life that is over, whose positions may since have
    /// been given to other events, nor one of views that another version of this program made.
    pub(crate) fn vouches(&self, mark: &Watermark) -> bool {
        mark.incarnation >= self.incarnation() && mark.is_of_this_version()
    }
}

/// Keeps a [`Standing`] up to date, and tells whether reads can be answered.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) standing: Standing,
    pub(crate) views: Views,
    pub(crate) probe: Probe,
    pub(crate) memory: PageCache,
    pub(crate) check: Check,
}

impl Watch {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let (has_views, has_log) = (AtomicBool::new(false), AtomicBool::new(false));
        let tell = || {
            let has = |server: &AtomicBool| server.load(Ordering::Relaxed);
            self.tell(has(&has_views), has(&has_log));
        };
        let redis = self.standing.redis.watch(
            || self.some_views(),
            ViewsError::is_refusal,
            |answer| {
                if let Some(answer) = answer {
                    has_views.store(answer, Ordering::Relaxed);
                }
                tell();
            },
        );
        let postgres = self.standing.postgres.watch(
            || self.probe.incarnation(),
            event_log::is_refusal,
            |answer| {
                if let Some(incarnation) = answer {
                    self.standing.incarnation.store(incarnation, Ordering::Relaxed);
                    has_log.store(true, Ordering::Relaxed);
                }
                tell();
            },
        );
        let watching = async { tokio::join!(redis, postgres, self.measure()) };
        stop.run_until_cancelled(watching).await;
        Ok(())
    }

    /// Whether there are any that vouch for something: where a part of a cluster is away, the rest still helps.
    async fn some_views(&self) -> Result<bool, ViewsError> {
        let mut silent = None;
        for answer in self.views.watermarks_that_answer().await {
            match answer {
                Ok(Some(mark)) if self.standing.vouches(&mark) => return Ok(true),
                Ok(_) => {}
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Ok(false), Err)
    }

    /// One of them is enough for pages: warm ones need no Postgres, and none needs Redis. A single silence is a
    /// hiccup: what counts is whether readers ask them, once they have answered.
    fn tell(&self, has_views: bool, has_log: bool) {
        let has_views = has_views && !self.standing.redis.is_open();
        let has_log = has_log && !self.standing.postgres.is_open();
        match (has_views, has_log) {
            (true, true) => self.check.ready(),
            (false, true) if self.standing.redis.is_open() => {
                self.check.degraded("Redis does not answer");
            }
            (false, true) => self.check.degraded("Redis has no views"),
            (true, false) => self.check.degraded("Postgres does not answer"),
            (false, false) if self.standing.redis.is_open() => {
                self.check.not_ready("neither Redis nor Postgres answers");
            }
            (false, false) => {
                self.check.not_ready("Redis has no views, and Postgres does not answer");
            }
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

//! Which of the servers behind us answer, and in which life the store is: asked all the time, so that
//! readers need not find out one by one.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{Partition, Partitions};
use event_log::{Probe, Store, StoreState};
use http_api::ConsistencyTokens;
use read_model::{Views, ViewsError, Watermark};
use service_runtime::Check;
use tokio_util::sync::CancellationToken;

use crate::breaker::Breaker;
use crate::config::Config;
use crate::heads::Heads;

/// What is known. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    incarnation: Arc<AtomicU32>,
    pub(crate) partitions: Partitions,
    pub(crate) heads: Arc<Heads>,
    pub(crate) consistency: ConsistencyTokens,
    pub(crate) redis: Breaker,
    pub(crate) postgres: Breaker,
}

impl Standing {
    pub(crate) fn new(store: Store, config: &Config) -> Self {
        let Store { incarnation, partitions, token_key } = store;
        Self {
            incarnation: Arc::new(AtomicU32::new(incarnation)),
            partitions,
            consistency: ConsistencyTokens::new(incarnation, token_key.0, partitions),
            heads: Arc::new(Heads::new(incarnation, partitions, config.views_lag_limit())),
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

    /// Returns `true` if views lag behind their partition for longer than they may.
    pub(crate) fn lag(&self, partition: Partition, mark: &Watermark) -> bool {
        mark.incarnation == self.incarnation()
            && self.heads.are_overdue(partition, mark.point.position)
    }
}

/// Keeps a [`Standing`] up to date, and tells whether reads can be answered. Clones are parts of one watch.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    standing: Standing,
    views: Views,
    probe: Arc<Probe>,
    check: Check,
    has_views: Arc<AtomicBool>,
    has_log: Arc<AtomicBool>,
    /// Why Postgres must not be used although it answers.
    read_only: Arc<Mutex<Option<String>>>,
}

impl Watch {
    pub(crate) fn new(standing: Standing, views: Views, probe: Probe, check: Check) -> Self {
        let (has_views, has_log, read_only) = Default::default();
        Self { standing, views, probe: Arc::new(probe), check, has_views, has_log, read_only }
    }

    pub(crate) async fn watch_redis(self, stop: CancellationToken) -> anyhow::Result<()> {
        let watching = self.standing.redis.watch(
            || self.some_views(),
            ViewsError::is_refusal,
            |answer| {
                if let Some(answer) = answer {
                    self.has_views.store(answer, Ordering::Relaxed);
                }
                self.tell();
            },
        );
        stop.run_until_cancelled(watching).await;
        Ok(())
    }

    pub(crate) async fn watch_postgres(self, stop: CancellationToken) -> anyhow::Result<()> {
        let watching = self.standing.postgres.watch(
            || self.store(),
            event_log::is_refusal,
            |answer| {
                if answer.is_some() {
                    self.has_log.store(true, Ordering::Relaxed);
                }
                self.tell();
            },
        );
        stop.run_until_cancelled(watching).await;
        Ok(())
    }

    /// Asks the store, on a primary, in which incarnation it is and how far it has come.
    async fn store(&self) -> Result<(), sqlx::Error> {
        let heights = self.views.heights();
        let answer = self.probe.state(self.standing.partitions).await;
        let read_only = answer.as_ref().err().filter(|error| event_log::is_read_only(error));
        *self.read_only() = read_only.map(ToString::to_string);
        let StoreState { incarnation, token_key, heads } = answer?;
        self.standing.incarnation.store(incarnation, Ordering::Relaxed);
        self.standing.consistency.update(incarnation, token_key.0);
        self.standing.heads.note(incarnation, &heads);
        self.views.lower_heights(&heights, incarnation, &heads);
        Ok(())
    }

    fn read_only(&self) -> MutexGuard<'_, Option<String>> {
        self.read_only.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are any that vouch for something: where a part of a cluster is away, the rest still helps.
    async fn some_views(&self) -> Result<bool, ViewsError> {
        let (mut some, mut silent) = (false, None);
        let mut marks = vec![];
        for answer in self.views.watermarks_that_answer().await {
            let mark = match answer {
                Ok(mark) => mark.filter(|mark| self.standing.vouches(mark)),
                Err(error) => {
                    silent = Some(error);
                    None
                }
            };
            some |= mark.is_some();
            marks.push(mark);
        }
        match silent {
            Some(error) if !some => Err(error),
            Some(_) | None => {
                self.standing.heads.measure(&marks);
                Ok(some)
            }
        }
    }

    /// One of them is enough for pages: warm ones need no Postgres, and none needs Redis. A single silence is a
    /// hiccup: what counts is whether readers ask them, once they have answered.
    ///
    /// A Postgres that takes no writes is of no more use than one that is away: what it has may be old.
    fn tell(&self) {
        let has = |server: &AtomicBool| server.load(Ordering::Relaxed);
        let has_views = has(&self.has_views) && !self.standing.redis.is_open();
        let has_log = has(&self.has_log) && !self.standing.postgres.is_open();
        let why = self.read_only().clone();
        let no_log = why.as_deref().unwrap_or("Postgres does not answer");
        match (has_views, has_log) {
            (true, true) => self.check.ready(),
            (false, true) if self.standing.redis.is_open() => {
                self.check.degraded("Redis does not answer");
            }
            (false, true) => self.check.degraded("Redis has no views"),
            (true, false) => self.check.degraded(no_log.to_owned()),
            (false, false) if self.standing.redis.is_open() => {
                self.check.not_ready(format!("Redis does not answer, and: {no_log}"));
            }
            (false, false) => {
                self.check.not_ready(format!("Redis has no views, and: {no_log}"));
            }
        }
    }
}

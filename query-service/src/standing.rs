//! Which of the servers behind us answer, and in which life the store is: asked once a second, so that
//! readers need not find out one by one.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use event_log::{EventLog, Store};
use read_model::Views;
use service_runtime::Check;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::page_cache::PageCache;

/// How long a server has to tell that it is there. More than readers wait: a slow one still helps.
const LIMIT: Duration = Duration::from_secs(1);

/// So many questions in a row must stay without an answer before readers ask Redis no more: a hiccup must
/// not send all of them to Postgres.
const SILENCES: u32 = 2;

/// What is known. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    incarnation: Arc<AtomicU32>,
    redis_is_silent: Arc<AtomicBool>,
}

impl Standing {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            incarnation: Arc::new(AtomicU32::new(store.incarnation)),
            redis_is_silent: Arc::default(),
        }
    }

    /// The store's life since it last came back from an earlier state.
    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Asking it would only cost the time limit.
    pub(crate) fn redis_is_silent(&self) -> bool {
        self.redis_is_silent.load(Ordering::Relaxed)
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
        let (mut redis, mut postgres) = (Server::new("Redis"), Server::new("Postgres"));
        let mut every = interval(Duration::from_secs(1));
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let (_, incarnation) = tokio::join!(
                redis.answer(self.views.watermarks()),
                postgres.answer(self.log.incarnation()),
            );
            self.standing.redis_is_silent.store(redis.silences >= SILENCES, Ordering::Relaxed);
            if let Some(incarnation) = incarnation {
                self.standing.incarnation.store(incarnation, Ordering::Relaxed);
            }
            self.memory.measure();
            // One of them is enough for pages: warm ones need no Postgres, and none needs Redis.
            if redis.silences > 0 && postgres.silences > 0 {
                self.check.not_ready("neither Redis nor Postgres answers");
            } else {
                self.check.ready();
            }
        }
        Ok(())
    }
}

/// A server, and how many questions in a row it has left without an answer. Each has a gauge and lines in
/// the log of its own, since the check tells only of both together.
struct Server {
    name: &'static str,
    silences: u32,
}

impl Server {
    fn new(name: &'static str) -> Self {
        Self { name, silences: 0 }
    }

    async fn answer<T, E: fmt::Display>(
        &mut self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        let name = self.name;
        let answer = match timeout(LIMIT, question).await {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(_elapsed) => Err("no answer in time".to_owned()),
        };
        match &answer {
            Ok(_) if self.silences > 0 => tracing::info!("{name} answers again"),
            Err(why) if self.silences == 0 => tracing::warn!("{name} does not answer: {why}"),
            _ => {}
        }
        self.silences = if answer.is_ok() { 0 } else { self.silences.saturating_add(1) };
        metrics::gauge!("server_answers", "server" => name).set(if answer.is_ok() {
            1.0
        } else {
            0.0
        });
        answer.ok()
    }
}

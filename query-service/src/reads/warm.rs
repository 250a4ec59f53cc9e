//! The views in Redis, as readers ask for them: nobody waits for long, and nobody asks a Redis that is known
//! to be silent.

use std::sync::Arc;
use std::time::Duration;

use domain::PostId;
use read_model::{FoundRow, Views, ViewsError, Watermark};
use tokio::time::timeout;

use super::batches::Batches;
use crate::breaker::Breaker;
use crate::config::Config;
use crate::standing::Standing;

/// How long what is written behind readers' backs may take, texts to be rendered included.
const OFFER_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub(crate) struct Warm {
    pub(crate) views: Views,
    pub(crate) standing: Standing,
    time_limit: Duration,
    /// Rows that are waited for; in a cluster by partition, lest one that is away keep the others waiting.
    rows: Arc<[Batches<PostId, Option<FoundRow>>]>,
}

impl Warm {
    pub(crate) fn new(views: Views, standing: Standing, config: &Config) -> Self {
        let batches = if views.are_in_a_cluster() { standing.partitions.count() } else { 1 };
        let rows = (0..batches).map(|_| Batches::new()).collect();
        Self { views, standing, time_limit: config.redis_limit(), rows }
    }

    /// The row of a post, asked for together with those that others wait for.
    pub(crate) async fn row(&self, id: PostId) -> Option<FoundRow> {
        if self.standing.redis.is_open() {
            return None;
        }
        let warm = self.clone();
        let batches = &self.rows[usize::from(self.views.partition_of(id).0) % self.rows.len()];
        let row = batches.ask(id, move |ids| warm.clone().rows(ids));
        // Whoever comes to a Redis that hangs would otherwise wait for those before them, too.
        timeout(self.time_limit, row).await.ok().flatten().flatten()
    }

    async fn rows(self, ids: Vec<PostId>) -> Vec<Option<FoundRow>> {
        let question = async {
            let mut rows = self.views.rows_that_answer(&ids).await;
            if rows.iter().all(Result::is_err)
                && let Some(Err(error)) = rows.pop()
            {
                return Err(error);
            }
            // One that cannot be read says nothing of the others.
            Ok(rows.into_iter().map(Result::ok).collect())
        };
        self.answer(question).await.unwrap_or_default()
    }

    /// The answer to a question that [`Warm::views`] was asked, or `None` if it cannot be had now.
    pub(crate) async fn answer<T>(
        &self,
        question: impl Future<Output = Result<T, ViewsError>>,
    ) -> Option<T> {
        let redis = &self.standing.redis;
        if redis.is_open() {
            return None;
        }
        // The connection has a limit of its own for each exchange, but while it is being made anew a
        // question would wait for all attempts.
        let why = match timeout(self.time_limit, question).await {
            Ok(Ok(answer)) => {
                redis.succeeded();
                return Some(answer);
            }
            Ok(Err(error @ ViewsError::Redis(_))) => {
                let why = error.to_string();
                if error.is_refusal() {
                    self.doubt(|redis| redis.refused(&why));
                } else {
                    self.doubt(|redis| redis.failed(&why));
                }
                why
            }
            // It is there, and what it has is no good.
            Ok(Err(error @ (ViewsError::Malformed(_) | ViewsError::Json(_)))) => error.to_string(),
            Err(_elapsed) => {
                self.doubt(|redis| redis.failed("no answer in time"));
                "no answer in time".to_owned()
            }
        };
        metrics::counter!("redis_failures_total").increment(1);
        // Once for each reader would be too often for a warning; whoever watches both servers gives it.
        tracing::debug!("Redis does not help a reader: {why}");
        None
    }

    /// What became of something that was offered to Redis behind a reader's back. That it is refused, or takes its
    /// time, says nothing of what readers may expect.
    pub(crate) async fn offer<T>(
        &self,
        offer: impl Future<Output = Result<T, ViewsError>>,
    ) -> Option<T> {
        if self.standing.redis.is_open() {
            return None;
        }
        match timeout(OFFER_LIMIT, offer).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!("Redis does not take what it is offered: {error}");
                None
            }
            Err(_elapsed) => None,
        }
    }

    /// Counts a failure, unless it may be that of one node of a cluster: the others still answer, and each is
    /// watched by a heartbeat, so that nobody waits for it long.
    fn doubt(&self, count: impl FnOnce(&Breaker)) {
        if !self.views.are_in_a_cluster() {
            count(&self.standing.redis);
        }
    }

    /// A watermark, if it [vouches](Standing::vouches) for anything.
    pub(crate) fn valid(&self, mark: Option<Watermark>) -> Option<Watermark> {
        mark.filter(|mark| self.standing.vouches(mark))
    }
}

//! The views in Redis, as readers ask for them: nobody waits for long, and nobody asks a Redis that is known
//! to be silent.

use std::time::Duration;

use read_model::{Views, ViewsError, Watermark};
use tokio::time::timeout;

use crate::standing::Standing;

#[derive(Debug, Clone)]
pub(crate) struct Warm {
    pub(crate) views: Views,
    pub(crate) standing: Standing,
    pub(crate) time_limit: Duration,
}

impl Warm {
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
            Ok(Err(ViewsError::Redis(error))) => {
                let why = error.to_string();
                if error.is_connection_refusal() {
                    redis.refused(&why);
                } else {
                    redis.failed(&why);
                }
                why
            }
            // It is there, and what it has is no good.
            Ok(Err(error @ (ViewsError::Malformed(_) | ViewsError::Json(_)))) => error.to_string(),
            Err(_elapsed) => {
                redis.failed("no answer in time");
                "no answer in time".to_owned()
            }
        };
        metrics::counter!("redis_failures_total").increment(1);
        // Once for each reader would be too often for a warning; whoever watches both servers gives it.
        tracing::debug!("Redis does not help a reader: {why}");
        None
    }

    /// A watermark that vouches for anything: not one of a life that is over, whose positions may since
    /// have been given to other events, nor one of views that another version of this program made.
    pub(crate) fn valid(&self, mark: Option<Watermark>) -> Option<Watermark> {
        let incarnation = self.standing.incarnation();
        mark.filter(|mark| mark.incarnation >= incarnation && mark.is_of_this_version())
    }
}

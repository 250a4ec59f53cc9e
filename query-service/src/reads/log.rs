//! The log of events, as readers fall back on it: a few reads at a time, and none for long.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::{Claim, Position, PostId, Slug};
use event_log::{EventLog, Histories, Unreadable};
use read_model::{Fold, FoldEnd, Row, fold_histories_caught};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::ReadError;
use crate::config::Config;
use crate::standing::Standing;

#[derive(Debug, Clone)]
pub(crate) struct Log {
    events: EventLog,
    fold: Fold,
    standing: Standing,
    turns: Arc<Semaphore>,
    /// Where to wait for a turn.
    queue: Arc<Semaphore>,
    time_limit: Duration,
    connections: u32,
}

/// Pages as the log has them.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) incarnation: u32,
    /// No event of these pages at or below it is missing.
    pub(crate) as_of: Position,
    pub(crate) rows: HashMap<PostId, Row>,
    /// Those with an event that this program cannot read or fold: their rows, if any, stand before it.
    pub(crate) unreadable: HashSet<PostId>,
}

impl Log {
    pub(crate) fn new(events: EventLog, fold: Fold, standing: Standing, config: &Config) -> Self {
        Self {
            events,
            fold,
            standing,
            // Who has a turn has a connection: nobody takes the wait for one for a silence.
            turns: Arc::new(Semaphore::new(
                config.log_reads.min(config.database_connections) as usize
            )),
            queue: Arc::new(Semaphore::new(config.log_queue as usize)),
            time_limit: config.log_limit(),
            connections: config.database_connections,
        }
    }

    /// Folds these pages from all their events but those that were discarded, or from those before one that
    /// cannot be read.
    pub(crate) async fn fold(&self, ids: &[PostId]) -> Result<Folded, ReadError> {
        let histories = async || Ok((self.events.histories(ids).await?, ids.len()));
        self.fold_what(histories).await.map(|(folded, _)| folded)
    }

    /// The same for the first of these pages, as many as are not too long together, and one at least. Tells
    /// how many.
    pub(crate) async fn fold_first(&self, ids: &[PostId]) -> Result<(Folded, usize), ReadError> {
        self.fold_what(|| self.events.first_histories(ids)).await
    }

    async fn fold_what<F>(&self, read: impl Fn() -> F) -> Result<(Folded, usize), ReadError>
    where
        F: Future<Output = anyhow::Result<(Histories, usize)>>,
    {
        metrics::counter!("folds_total").increment(1);
        let begun = Instant::now();
        let incarnation = self.standing.incarnation();
        let (Histories { as_of, events, unreadable }, count) = self.read(read).await?;
        let is_discarded = |position| self.read(move || self.events.is_discarded(position));
        let folds = fold_histories_caught(self.fold, events, is_discarded).await?;
        for Unreadable { stream_id, position, reason } in &unreadable {
            tracing::error!(
                post.id = stream_id, %position,
                "The page of post {stream_id} ends before position {position}: {reason}"
            );
        }
        for FoldEnd { post_id, position, reason } in &folds.ended {
            tracing::error!(
                post.id = %post_id, %position,
                "The page of post {post_id} ends before position {position}: {reason}"
            );
        }
        let unreadable = unreadable.iter().filter_map(|end| end.stream_id.parse().ok());
        let unreadable = unreadable.chain(folds.ended.iter().map(|end| end.post_id)).collect();
        let rows = folds.rows;
        metrics::histogram!("fold_duration_seconds").record(begun.elapsed());
        Ok((Folded { incarnation, as_of, rows, unreadable }, count))
    }

    /// The post that a slug names, or named.
    pub(crate) async fn claim_of(&self, slug: &Slug) -> Result<Option<Claim>, ReadError> {
        self.read(|| self.events.claim_of(slug)).await
    }

    async fn read<T, F>(&self, read: impl Fn() -> F) -> Result<T, ReadError>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let postgres = &self.standing.postgres;
        if postgres.is_open() {
            return Err(ReadError::Unavailable);
        }
        tokio::select! {
            answer = self.read_in_turn(read) => answer,
            // The pool would try a connection that is refused again until the time is up.
            () = postgres.gone() => Err(ReadError::Unavailable),
        }
    }

    async fn read_in_turn<T, F>(&self, read: impl Fn() -> F) -> Result<T, ReadError>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let postgres = &self.standing.postgres;
        let deadline = Instant::now() + self.time_limit;
        let _turn = timeout_at(deadline, self.turn()).await.unwrap_or_else(|_elapsed| {
            tracing::debug!("The log does not help a reader: its turn did not come in time");
            Err(ReadError::Unavailable)
        })?;
        let begun = Instant::now();
        let read = timeout_at(deadline, async {
            let mut attempts = 0..=self.connections;
            loop {
                match read().await {
                    // A connection that broke while nobody used it shows that only when it is used. Each
                    // of them may be such a one.
                    Err(error) if broke(&error) && attempts.next().is_some() => postgres.doubt(),
                    outcome => return outcome,
                }
            }
        });
        let why = match read.await {
            Ok(Ok(answer)) => {
                postgres.succeeded();
                return Ok(answer);
            }
            Ok(Err(error)) => {
                let why = format!("{error:#}");
                if !is_an_answer(&error) {
                    postgres.failed(&why);
                }
                why
            }
            Err(_elapsed) => {
                // Whose turn came late has not given it a fair time.
                if begun.elapsed() >= self.time_limit / 2 {
                    postgres.failed("it took too long");
                }
                "it took too long".to_owned()
            }
        };
        metrics::counter!("log_failures_total").increment(1);
        tracing::debug!("The log does not help a reader: {why}");
        Err(ReadError::Unavailable)
    }

    /// A turn, at once or after those who came before. Without a bound, the readers of a lost Redis would all
    /// wait here in vain.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, ReadError> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        let Ok(_place) = self.queue.try_acquire() else {
            metrics::counter!("log_reads_turned_away_total").increment(1);
            return Err(ReadError::Unavailable);
        };
        let _waiting = Waiting::begin();
        self.turns.acquire().await.map_err(|_closed| ReadError::Unavailable)
    }
}

/// Counts one who waits for a turn, until it is dropped.
struct Waiting;

impl Waiting {
    fn begin() -> Self {
        metrics::gauge!("log_reads_waiting").increment(1.0);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        metrics::gauge!("log_reads_waiting").decrement(1.0);
    }
}

/// Whether Postgres is there and says that something is wrong, other than that it stops or starts.
fn is_an_answer(error: &anyhow::Error) -> bool {
    const OPERATOR_INTERVENTION: &str = "57";
    let error = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
    let code = error.and_then(|error| error.code());
    code.is_some_and(|code| !code.starts_with(OPERATOR_INTERVENTION))
}

fn broke(error: &anyhow::Error) -> bool {
    // The code with which Postgres says goodbye when it stops.
    const ADMIN_SHUTDOWN: &str = "57P01";
    match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Io(_)) => true,
        Some(error) => error
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| code == ADMIN_SHUTDOWN),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use clap::Parser as _;
    use domain::Partitions;
    use event_log::{PoolSettings, Store, TokenKey};
    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_log_that_hangs_is_known_by_those_who_gave_it_their_time() {
        let log = log(3);
        join_all((0..3).map(|_| log.read(pending::<anyhow::Result<()>>))).await;
        assert!(log.standing.postgres.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn those_whose_turn_came_late_say_nothing_of_the_log() {
        let log = log(1);
        let reader = async |number: u64| {
            sleep(Duration::from_millis(10 * number)).await;
            log.read(pending::<anyhow::Result<()>>).await
        };
        let answers = join_all((0..10).map(reader)).await;
        assert!(answers.iter().all(Result::is_err));
        assert!(!log.standing.postgres.is_open());
    }

    fn log(turns: u32) -> Log {
        let url = "postgres://nowhere";
        let options = ["query-service", "--database-url", url, "--redis-url", "redis://nowhere"];
        let mut config = Config::parse_from(options);
        (config.log_reads, config.log_limit_ms) = (turns, 1000);
        let (name, acquire_limit) = ("query-service", config.log_limit());
        let settings =
            PoolSettings { name, connections: 1, acquire_limit, options: &[], for_scans: false };
        let partitions = Partitions::new(1).unwrap();
        let events = EventLog::new(event_log::pool(url, settings).unwrap(), partitions);
        let standing = Standing::new(
            Store { incarnation: 1, partitions, token_key: TokenKey([7; 32]) },
            &config,
        );
        Log::new(events, read_model::fold_page, standing, &config)
    }
}

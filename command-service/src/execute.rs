//! The life of one command: load or recall, decide, commit, and decide once more where that is called for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use domain::post::{Post, PostCommand, PostError, PostEvent, SlugChoice, Status};
use domain::{Position, PostId, Slug};
use http_api::etag::EntityTags;
use serde::{Deserialize, Serialize};

use crate::preconditions::IdempotencyKey;
use crate::store::{
    AppendError, Decided, Judged, LoadError, Lock, Locks, Recent, Store, Versioned, claimed_slug,
};

/// How often a command that lost against another is decided anew.
const RETRIES: usize = 5;

/// Executes commands on posts. Clones share everything.
#[derive(Debug, Clone)]
pub struct Posts {
    store: Store<Post>,
    recent: Arc<Recent>,
    locks: Locks,
}

/// Whether a command may find a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its id was made for this command, so there is nothing to load.
    New,
    Existing,
}

/// A commit is on its way to Postgres, or its outcome is unknown: what is cached of its post may be behind.
/// Dropped like that, with the command given up, it removes the post from the cache.
struct Unsettled<'a> {
    recent: &'a Recent,
    post_id: PostId,
    settled: bool,
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.recent.forget(self.post_id);
        }
    }
}

/// What is asked of one post, and under which conditions.
#[derive(Debug)]
pub struct Order<F> {
    pub post_id: PostId,
    pub stream: Stream,
    /// Kept beside every event.
    pub metadata: HashMap<String, String>,
    /// At which versions it may be carried out; at any, if there is none.
    pub if_match: Option<EntityTags>,
    /// Under which key its answer is kept.
    pub key: Option<IdempotencyKey>,
    /// Time by which its commit must be answered. A commit that was not sent by then never is.
    pub deadline: Instant,
    /// The commands, asked for again for each decision.
    pub commands: F,
}

/// What became of an order: what its answer is made from, now and when the order comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was carried out, or had been already.
    Done {
        post_id: PostId,
        slug: Option<Slug>,
        status: Status,
        created: bool,
    },
    Refused(Refusal),
}

/// Why an order was not carried out, and will not be, as long as the post stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    NotFound,
    Deleted,
    NotTheAuthor,
    /// `If-Match` names other versions than the present one.
    VersionMismatch,
    /// A slug that the author asked for belongs to another post.
    SlugTaken,
}

/// An outcome that stands.
#[derive(Debug)]
pub struct Answered {
    pub outcome: Outcome,
    /// The version of the post, and the position of the last event of its stream.
    pub version: u64,
    pub position: Position,
    /// It is that of an earlier request with the same key.
    pub replayed: bool,
}

/// Why an order has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error("the post was changed by others again and again")]
    Conflict,
    #[error("the key was given to another request")]
    KeyReused,
    #[error("too many commands are waiting")]
    Overloaded,
    /// Certainly not recorded.
    #[error("the store cannot be reached")]
    Unavailable(#[source] anyhow::Error),
    /// Sent to Postgres and not answered: it may be recorded, or may still be.
    #[error("the outcome of the command is unknown")]
    OutcomeUnknown { has_key: bool },
    #[error("the command failed")]
    Internal(#[source] anyhow::Error),
}

/// What a decision rests on.
struct Ground {
    versioned: Versioned,
    /// It may be behind what others have written.
    from_memory: bool,
}

/// What was decided on some ground.
struct Decision {
    /// The post after its events.
    post: Post,
    events: Vec<PostEvent>,
    outcome: Outcome,
}

/// An order on its way through some attempts.
struct Attempts {
    id: String,
    choice: SlugChoice,
    /// The slug that the last attempt found taken.
    taken: Option<Slug>,
    delays: ExponentialBackoff,
}

/// What became of a command, in the numbers of this process.
pub(crate) fn outcome_name(answered: &Result<Answered, ExecuteError>) -> &'static str {
    match answered {
        Ok(Answered { replayed: true, .. }) => "replayed",
        Ok(Answered { outcome: Outcome::Done { .. }, .. }) => "done",
        Ok(Answered { outcome: Outcome::Refused(refusal), .. }) => match refusal {
            Refusal::NotFound => "not_found",
            Refusal::Deleted => "gone",
            Refusal::NotTheAuthor => "forbidden",
            Refusal::VersionMismatch => "version_mismatch",
            Refusal::SlugTaken => "slug_taken",
        },
        Err(ExecuteError::Conflict) => "conflict",
        Err(ExecuteError::KeyReused) => "key_reused",
        Err(ExecuteError::Overloaded) => "overloaded",
        Err(ExecuteError::Unavailable(_)) => "unavailable",
        Err(ExecuteError::OutcomeUnknown { .. }) => "outcome_unknown",
        Err(ExecuteError::Internal(_)) => "internal",
    }
}

impl Posts {
    pub fn new(store: Store<Post>, recent: Recent) -> Self {
        Self { store, recent: Arc::new(recent), locks: Locks::default() }
    }

    /// Decides and records, as one commit, what is asked of one post.
    ///
    /// A slug that was made from a title and is taken is made once more, with digits of the id behind it.
    ///
    /// The commands of one post take turns. No other command knows a new post, so that one takes no lock.
    pub async fn execute<F>(&self, order: Order<F>) -> Result<Answered, ExecuteError>
    where
        F: Fn(SlugChoice) -> Vec<PostCommand> + Send + Sync,
    {
        let lock = match order.stream {
            Stream::New => None,
            Stream::Existing => Some(self.turn(order.post_id, order.deadline).await?),
        };
        let mut attempts = Attempts::new(order.post_id);
        loop {
            let ground = self.ground(&order, &attempts.id, lock.as_ref()).await?;
            let version = ground.versioned.version;
            let decision = decide(&order, &ground, &attempts).await?;
            let refused = matches!(decision.outcome, Outcome::Refused(_));
            if refused && !ground.from_memory && order.key.is_none() {
                // It rests on what was just read, and nobody wants it kept.
                let position = Position::ZERO;
                return Ok(Answered {
                    outcome: decision.outcome,
                    version,
                    position,
                    replayed: false,
                });
            }
            // A refusal, and what has nothing to record, is confirmed at its version: memory may be behind.
            let kept = order.key.as_ref().map(|key| key.keep(&decision.outcome)).transpose();
            let kept = kept.map_err(|error| ExecuteError::Internal(error.into()))?;
            let decided = Decided {
                deadline: order.deadline,
                id: &attempts.id,
                version,
                events: &decision.events,
                aggregate: &decision.post,
                metadata: &order.metadata,
                kept,
                lock: lock.clone(),
            };
            let judged = self.record(order.post_id, decided).await?;
            if decision.events.is_empty() {
                count_confirmation(&judged);
            }
            match judged {
                Judged::Recorded { version, position } => {
                    if !refused {
                        self.recent.put(order.post_id, Versioned { post: decision.post, version });
                    }
                    return Ok(Answered {
                        outcome: decision.outcome,
                        version,
                        position,
                        replayed: false,
                    });
                }
                Judged::Done { version, position, request_hash, answer } => {
                    return replay(&order, version, position, &request_hash, &answer);
                }
                Judged::Conflict { .. } => {
                    metrics::counter!("command_retries_total", "reason" => "conflict").increment(1);
                    self.recent.forget(order.post_id);
                    let delay = attempts.delays.next().ok_or(ExecuteError::Conflict)?;
                    tokio::time::sleep(delay).await;
                }
                Judged::SlugTaken => {
                    metrics::counter!("command_retries_total", "reason" => "slug_taken")
                        .increment(1);
                    attempts.choice = SlugChoice::FromTitleAndId;
                    attempts.taken = claimed_slug(&decision.events).cloned();
                }
            }
        }
    }

    /// Waits until no other command of this process works on the post.
    async fn turn(&self, post_id: PostId, deadline: Instant) -> Result<Lock, ExecuteError> {
        let began = Instant::now();
        let lock = tokio::time::timeout_at(deadline.into(), self.locks.lock(post_id)).await;
        metrics::histogram!("command_turn_seconds").record(began.elapsed());
        lock.context("waiting for other commands on the post").map_err(ExecuteError::Unavailable)
    }

    async fn ground<F>(
        &self,
        order: &Order<F>,
        id: &str,
        lock: Option<&Lock>,
    ) -> Result<Ground, ExecuteError> {
        if order.stream == Stream::New {
            return Ok(Ground { versioned: Versioned::default(), from_memory: false });
        }
        let recent = self.recent.get(order.post_id);
        let outcome = if recent.is_some() { "hit" } else { "miss" };
        metrics::counter!("recent_reads_total", "outcome" => outcome).increment(1);
        if let Some(versioned) = recent {
            return Ok(Ground { versioned, from_memory: true });
        }
        let versioned = self.load(order.post_id, id, lock.cloned()).await?;
        Ok(Ground { versioned, from_memory: false })
    }

    /// Loads a post into the cache, in a task of its own: it goes on if the command is given up, and holds the
    /// lock until its end. So a long stream is read once, however often its client tries.
    async fn load(
        &self,
        post_id: PostId,
        id: &str,
        lock: Option<Lock>,
    ) -> Result<Versioned, ExecuteError> {
        let loading = self.store.begin_load(id).await?;
        let recent = Arc::clone(&self.recent);
        let loaded = tokio::spawn(async move {
            let loaded = loading.fold().await?;
            let versioned = Versioned { post: loaded.aggregate, version: loaded.version };
            // An id that no post has is not worth the room.
            if versioned.version > 0 {
                recent.put(post_id, versioned.clone());
            }
            drop(lock);
            Ok::<_, LoadError>(versioned)
        });
        let loaded = loaded.await.context("loading a post").map_err(ExecuteError::Internal)?;
        Ok(loaded?)
    }

    async fn record(
        &self,
        post_id: PostId,
        decided: Decided<'_, Post>,
    ) -> Result<Judged, ExecuteError> {
        let has_key = decided.kept.is_some();
        let settled = decided.events.is_empty();
        let mut commit = Unsettled { recent: &self.recent, post_id, settled };
        let judged = self.store.record(decided).await;
        // Judged, or never sent.
        commit.settled |=
            matches!(judged, Ok(_) | Err(AppendError::Overloaded | AppendError::TooLate));
        judged.map_err(|error| match error {
            AppendError::Overloaded => ExecuteError::Overloaded,
            AppendError::Stopped | AppendError::TooLate | AppendError::Cancelled(_) => {
                ExecuteError::Unavailable(error.into())
            }
            AppendError::OutcomeUnknown => ExecuteError::OutcomeUnknown { has_key },
            AppendError::Rejected(_) => ExecuteError::Internal(error.into()),
        })
    }
}

impl From<LoadError> for ExecuteError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Unavailable(error) => Self::Unavailable(error),
            LoadError::Unreadable(error) => Self::Internal(error),
        }
    }
}

fn count_confirmation(judged: &Judged) {
    let outcome = match judged {
        Judged::Recorded { .. } => "confirmed",
        Judged::Conflict { .. } => "stale",
        Judged::Done { .. } | Judged::SlugTaken => return,
    };
    metrics::counter!("command_confirmations_total", "outcome" => outcome).increment(1);
}

impl Attempts {
    fn new(post_id: PostId) -> Self {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(1))
            .with_max_times(RETRIES)
            .with_jitter();
        Self {
            id: post_id.to_string(),
            choice: SlugChoice::FromTitle,
            taken: None,
            delays: delays.build(),
        }
    }
}

/// The post after the commands of an order, the events they cause, and how the order is answered.
async fn decide<F>(
    order: &Order<F>,
    ground: &Ground,
    attempts: &Attempts,
) -> Result<Decision, ExecuteError>
where
    F: Fn(SlugChoice) -> Vec<PostCommand>,
{
    let before = &ground.versioned;
    let refuse = |refusal| {
        let outcome = Outcome::Refused(refusal);
        Ok(Decision { post: before.post.clone(), events: vec![], outcome })
    };
    let (mut post, sink) = (before.post.clone(), EventSink::default());
    for command in (order.commands)(attempts.choice) {
        match post.handle(command, &(), &sink).await {
            Ok(()) => {}
            Err(PostError::NotFound) => return refuse(Refusal::NotFound),
            Err(PostError::Deleted) => return refuse(Refusal::Deleted),
            Err(PostError::NotTheAuthor) => return refuse(Refusal::NotTheAuthor),
            // Ids are made here, so somebody else made the same one at the same time.
            Err(PostError::AlreadyExists) => return Err(ExecuteError::Conflict),
        }
    }
    let matches = |tags: &EntityTags| before.version > 0 && tags.include_version(before.version);
    if !order.if_match.as_ref().is_none_or(matches) {
        return refuse(Refusal::VersionMismatch);
    }
    let events = sink.collect().await;
    if attempts.taken.is_some() && claimed_slug(&events) == attempts.taken.as_ref() {
        // It did not change with the choice, so the author asked for it.
        return refuse(Refusal::SlugTaken);
    }
    let outcome = Outcome::Done {
        post_id: order.post_id,
        slug: post.slug().cloned(),
        status: post.status(),
        created: order.stream == Stream::New,
    };
    Ok(Decision { post, events, outcome })
}

/// What an earlier request with the same key was answered.
fn replay<F>(
    order: &Order<F>,
    version: u64,
    position: Position,
    request_hash: &[u8],
    answer: &str,
) -> Result<Answered, ExecuteError> {
    if order.key.as_ref().is_some_and(|key| key.request_hash != request_hash) {
        return Err(ExecuteError::KeyReused);
    }
    let outcome = serde_json::from_str(answer).context("reading a kept answer");
    let outcome = outcome.map_err(ExecuteError::Internal)?;
    Ok(Answered { outcome, version, position, replayed: true })
}

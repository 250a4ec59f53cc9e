//! The life of one command: load or recall, decide, commit, and decide once more where that is called for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use domain::post::{Post, PostCommand, PostError, PostEvent, SlugChoice};
use domain::{Position, PostId, Slug, StoredEvent};

use crate::store::{AppendError, Judged, LoadError, Recent, Store, Versioned};

/// How often a command that lost against another is decided anew.
const RETRIES: usize = 5;

/// Executes commands on posts. Clones share everything.
#[derive(Debug, Clone)]
pub struct Posts {
    store: Store<Post>,
    recent: Arc<Recent>,
}

/// Whether a command may find a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its id was made for this command, so there is nothing to load.
    New,
    Existing,
}

/// A command that was carried out, or had been already.
#[derive(Debug)]
pub struct Done {
    /// The post after it.
    pub post: Post,
    pub version: u64,
    /// The position of the last event of its stream.
    pub position: Position,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ExecuteError {
    #[error(transparent)]
    Refused(#[from] PostError),
    #[error("the slug belongs to another post")]
    SlugTaken,
    #[error("the post was changed by others again and again")]
    Conflict,
    #[error("too many commands are waiting")]
    Overloaded,
    #[error("the store cannot be reached")]
    Unavailable(#[source] anyhow::Error),
    #[error("the command failed")]
    Internal(#[source] anyhow::Error),
}

/// What a decision rests on.
struct Ground {
    versioned: Versioned,
    /// It may be behind what others have written.
    from_memory: bool,
}

impl Posts {
    pub fn new(store: Store<Post>, recent: Recent) -> Self {
        Self { store, recent: Arc::new(recent) }
    }

    /// Decides and records, as one commit, what `commands` ask of one post.
    ///
    /// `commands` is asked again for each decision. A slug that was made from a title and is taken is made
    /// once more, with digits of the id behind it.
    pub async fn execute(
        &self,
        post_id: PostId,
        stream: Stream,
        metadata: HashMap<String, String>,
        commands: impl Fn(SlugChoice) -> Vec<PostCommand> + Send + Sync,
    ) -> Result<Done, ExecuteError> {
        let id = post_id.to_string();
        let mut choice = SlugChoice::FromTitle;
        let mut refused_slug: Option<Slug> = None;
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(1))
            .with_max_times(RETRIES)
            .with_jitter()
            .build();
        loop {
            let ground = self.ground(post_id, &id, stream).await?;
            let version = ground.versioned.version;
            let (post, events) = match decide(ground.versioned.post, commands(choice)).await {
                Ok(decided) => decided,
                // Memory may be behind, so a refusal that rests on it is confirmed at its version.
                Err(refusal) if ground.from_memory => {
                    match self.append(&id, version, &[], &metadata).await? {
                        Judged::Recorded { .. } => return Err(refusal.into()),
                        Judged::Conflict { .. } | Judged::SlugTaken => {
                            self.again(post_id, delays.next()).await?;
                            continue;
                        }
                    }
                }
                Err(refusal) => return Err(refusal.into()),
            };
            let slug = events.iter().rev().find_map(PostEvent::claimed_slug);
            if slug.is_some() && slug == refused_slug.as_ref() {
                return Err(ExecuteError::SlugTaken);
            }
            match self.append(&id, version, &events, &metadata).await? {
                Judged::Recorded { version, position } => {
                    self.recent.put(post_id, Versioned { post: post.clone(), version });
                    return Ok(Done { post, version, position });
                }
                Judged::Conflict { .. } => self.again(post_id, delays.next()).await?,
                Judged::SlugTaken => {
                    refused_slug = slug.cloned();
                    choice = SlugChoice::FromTitleAndId;
                }
            }
        }
    }

    async fn ground(
        &self,
        post_id: PostId,
        id: &str,
        stream: Stream,
    ) -> Result<Ground, ExecuteError> {
        if stream == Stream::New {
            return Ok(Ground { versioned: Versioned::default(), from_memory: false });
        }
        if let Some(versioned) = self.recent.get(post_id) {
            return Ok(Ground { versioned, from_memory: true });
        }
        let loaded = self.store.load(id).await.map_err(|error| match error {
            LoadError::Unavailable(error) => ExecuteError::Unavailable(error),
            LoadError::Unreadable(error) => ExecuteError::Internal(error),
        })?;
        let versioned = Versioned { post: loaded.aggregate, version: loaded.version };
        Ok(Ground { versioned, from_memory: false })
    }

    /// Makes ready to decide anew after a conflict: without what was remembered, and a little later.
    async fn again(&self, post_id: PostId, delay: Option<Duration>) -> Result<(), ExecuteError> {
        self.recent.forget(post_id);
        tokio::time::sleep(delay.ok_or(ExecuteError::Conflict)?).await;
        Ok(())
    }

    async fn append(
        &self,
        id: &str,
        version: u64,
        events: &[PostEvent],
        metadata: &HashMap<String, String>,
    ) -> Result<Judged, ExecuteError> {
        self.store.append(id, version, events, metadata).await.map_err(|error| match error {
            AppendError::Overloaded => ExecuteError::Overloaded,
            AppendError::Stopped => ExecuteError::Unavailable(error.into()),
            AppendError::Rejected(_) => ExecuteError::Internal(error.into()),
        })
    }
}

/// The post after these commands, and the events they cause.
async fn decide(
    mut post: Post,
    commands: Vec<PostCommand>,
) -> Result<(Post, Vec<PostEvent>), PostError> {
    let sink = EventSink::default();
    for command in commands {
        post.handle(command, &(), &sink).await?;
    }
    Ok((post, sink.collect().await))
}

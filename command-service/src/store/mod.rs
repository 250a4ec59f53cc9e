//! Our [`cqrs_es::EventStore`]: it [loads](Loading) aggregates row by row and commits through the [`Writer`].
//!
//! The one place that knows postgres-es and `append_events`.

mod append;
mod flight;
mod loading;
mod locks;
mod recent;
mod room;
mod session;
mod snapshots;
mod ticket;
mod writer;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use cqrs_es::persist::{PersistedEventRepository, SerializedEvent};
use cqrs_es::{
    Aggregate, AggregateContext, AggregateError, DomainEvent, EventEnvelope, EventStore,
};
use domain::{Partitions, Slug, StoredEvent};
use postgres_es::PostgresEventRepository;
use sqlx::PgPool;
use uuid::Uuid;

pub use loading::Loading;
pub use locks::{Lock, Locks};
pub use recent::{Recent, Versioned};
pub use room::QueueLimits;
pub use snapshots::{SnapshotQueue, SnapshotTask, snapshots};
pub use writer::{AppendError, Commit, Judged, Kept, NewEvent, Writer, WriterTask, writer};

use snapshots::{Snapshots, is_due};

/// Timeout for reading a whole stream into memory, as the trait of cqrs-es has it.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout for a commit that comes through the framework.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The streams of one kind of aggregate.
#[derive(Clone)]
pub struct Store<A> {
    pool: PgPool,
    streams: Arc<PostgresEventRepository>,
    snapshots: Option<Snapshots>,
    writer: Writer,
    partitions: Partitions,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> std::fmt::Debug for Store<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Why a stream cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Unavailable(anyhow::Error),
    /// It holds an event that this program cannot read.
    #[error(transparent)]
    Unreadable(anyhow::Error),
}

/// An aggregate as it was loaded.
#[derive(Debug, Clone, Default)]
pub struct Loaded<A> {
    pub id: String,
    pub aggregate: A,
    /// The sequence of the last event applied to it; zero if it has none.
    pub version: u64,
}

/// Events and claims of one decision about one aggregate.
#[derive(Debug)]
pub struct Decided<'a, A: Aggregate> {
    /// Time by which the commit must be answered.
    pub deadline: Instant,
    pub id: &'a str,
    /// The version that the decision rests on.
    pub version: u64,
    pub events: &'a [A::Event],
    /// The aggregate after these events.
    pub aggregate: &'a A,
    pub metadata: &'a HashMap<String, String>,
    /// Outcome to be stored under the client's key.
    pub kept: Option<Kept>,
    /// Released no earlier than the commit is judged.
    pub lock: Option<Lock>,
}

impl<A: Aggregate> AggregateContext<A> for Loaded<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.aggregate
    }
}

impl<A> Store<A>
where
    A: Aggregate,
    A::Event: StoredEvent,
{
    pub fn new(pool: PgPool, writer: Writer, partitions: Partitions) -> Self {
        let streams = Arc::new(PostgresEventRepository::new(pool.clone()));
        Self { pool, streams, snapshots: None, writer, partitions, aggregate: PhantomData }
    }

    /// Loads from snapshots of this shape, and queues new ones.
    #[must_use]
    pub fn with_snapshots(mut self, queue: SnapshotQueue, shape: &'static str) -> Self {
        self.snapshots = Some(Snapshots { queue, shape });
        self
    }

    /// Begins to load an aggregate: waits for a connection.
    pub async fn begin_load(&self, id: &str) -> Result<Loading<A>, LoadError> {
        Loading::begin(&self.pool, id, self.snapshots.clone()).await
    }

    /// Loads an aggregate.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, LoadError> {
        self.begin_load(id).await?.fold().await
    }

    /// Hands the events of one decision to the writer, and queues a snapshot if one is due. Without events it
    /// asks whether the version is still the present one.
    pub async fn record(&self, decided: Decided<'_, A>) -> Result<Judged, AppendError> {
        let Decided { deadline, id, version, events, aggregate, metadata, kept, lock } = decided;
        let commit = self.new_commit(id, version, events, metadata, kept)?;
        let last_event = commit.events.last().map(|event| event.id);
        let judged = self.writer.append_under(lock, deadline, commit).await?;
        if let (Judged::Recorded { version: now, .. }, Some(event_id), Some(snapshots)) =
            (&judged, last_event, &self.snapshots)
            && is_due(version, *now)
        {
            snapshots.offer(id, *now, event_id, aggregate);
        }
        Ok(judged)
    }

    /// Hands the events of one decision to the writer, with what is to be kept under the client's key.
    /// Without events it asks whether `version` is still the present one.
    pub async fn append(
        &self,
        deadline: Instant,
        id: &str,
        version: u64,
        events: &[A::Event],
        metadata: &HashMap<String, String>,
        kept: Option<Kept>,
    ) -> Result<Judged, AppendError> {
        let commit = self.new_commit(id, version, events, metadata, kept)?;
        self.writer.append_by(deadline, commit).await
    }

    fn new_commit(
        &self,
        id: &str,
        version: u64,
        events: &[A::Event],
        metadata: &HashMap<String, String>,
        kept: Option<Kept>,
    ) -> Result<Commit, AppendError> {
        let new_event = |event: &A::Event| {
            Ok(NewEvent {
                id: Uuid::now_v7(),
                event_type: event.event_type(),
                event_version: event.event_version(),
                payload: serde_json::to_string(event)?,
            })
        };
        let unwritable =
            |error: serde_json::Error| AppendError::Rejected(sqlx::Error::Encode(error.into()));
        let new_events =
            events.iter().map(new_event).collect::<Result<Vec<_>, _>>().map_err(unwritable)?;
        Ok(Commit {
            uid: new_events.first().map_or_else(Uuid::now_v7, |event| event.id),
            aggregate_type: A::TYPE,
            aggregate_id: id.to_owned(),
            version,
            partition: self.partitions.of(id).0,
            slug: claimed_slug(events).cloned(),
            events: new_events,
            kept,
            metadata: serde_json::to_string(metadata).map_err(unwritable)?,
        })
    }
}

/// The slug that the events of one decision claim.
pub(crate) fn claimed_slug<E: StoredEvent>(events: &[E]) -> Option<&Slug> {
    events.iter().rev().find_map(StoredEvent::claimed_slug)
}

fn decode<A: Aggregate>(event: SerializedEvent) -> anyhow::Result<EventEnvelope<A>>
where
    A::Event: StoredEvent,
{
    Ok(EventEnvelope {
        payload: A::Event::read(&event.event_type, &event.event_version, event.payload)?,
        aggregate_id: event.aggregate_id,
        sequence: event.sequence,
        metadata: serde_json::from_value(event.metadata)?,
    })
}

impl<A> EventStore<A> for Store<A>
where
    A: Aggregate,
    A::Event: StoredEvent,
{
    type AC = Loaded<A>;

    async fn load_events(
        &self,
        id: &str,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let events = self.streams.get_events::<A>(id);
        let events = tokio::time::timeout(EVENTS_TIMEOUT, events).await;
        let events = events.context("took too long").and_then(|events| Ok(events?));
        let events = events.and_then(|events| events.into_iter().map(decode).collect());
        let events = events.context("reading a whole stream");
        events.map_err(|error| AggregateError::UnexpectedError(error.into()))
    }

    async fn load_aggregate(&self, id: &str) -> Result<Loaded<A>, AggregateError<A::Error>> {
        self.load(id).await.map_err(|error| AggregateError::UnexpectedError(error.into()))
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: Loaded<A>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let deadline = Instant::now() + COMMIT_TIMEOUT;
        match self.append(deadline, &context.id, context.version, &events, &metadata, None).await {
            Ok(Judged::Recorded { .. }) => {
                let envelope = |(sequence, payload)| EventEnvelope {
                    aggregate_id: context.id.clone(),
                    sequence,
                    payload,
                    metadata: metadata.clone(),
                };
                Ok((context.version as usize + 1..).zip(events).map(envelope).collect())
            }
            Ok(Judged::Conflict { .. }) => Err(AggregateError::AggregateConflict),
            // Only a commit that carries a key can have been done before.
            Ok(Judged::Done { .. }) => {
                Err(AggregateError::UnexpectedError("it was done before".into()))
            }
            Ok(Judged::SlugTaken) => {
                Err(AggregateError::UnexpectedError("the slug is taken".into()))
            }
            Err(error) => Err(AggregateError::UnexpectedError(error.into())),
        }
    }
}

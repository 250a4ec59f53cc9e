//! Our [`cqrs_es::EventStore`]: it loads streams through postgres-es and commits through the [`Writer`].
//!
//! The one place that knows postgres-es and `append_events`.

mod append;
mod flight;
mod recent;
mod room;
mod session;
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

pub use recent::{Recent, Versioned};
pub use room::QueueLimits;
pub use writer::{AppendError, Commit, Judged, Kept, NewEvent, Writer, WriterTask, writer};

/// No stream takes longer to load; one that would is given up, and its caller told so.
const LOAD_LIMIT: Duration = Duration::from_secs(5);

/// Timeout for a commit that comes through the framework.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The streams of one kind of aggregate.
#[derive(Clone)]
pub struct Store<A> {
    streams: Arc<PostgresEventRepository>,
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
        let streams = Arc::new(PostgresEventRepository::new(pool));
        Self { streams, writer, partitions, aggregate: PhantomData }
    }

    /// Reads a stream and folds it.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, LoadError> {
        let mut loaded = Loaded { id: id.to_owned(), aggregate: A::default(), version: 0 };
        for event in self.read(id).await? {
            loaded.version = event.sequence as u64;
            loaded.aggregate.apply(event.payload);
        }
        Ok(loaded)
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
        let commit = Commit {
            uid: new_events.first().map_or_else(Uuid::now_v7, |event| event.id),
            aggregate_type: A::TYPE,
            aggregate_id: id.to_owned(),
            version,
            partition: self.partitions.of(id).0,
            slug: claimed_slug(events).cloned(),
            events: new_events,
            kept,
            metadata: serde_json::to_string(metadata).map_err(unwritable)?,
        };
        self.writer.append_by(deadline, commit).await
    }

    async fn read(&self, id: &str) -> Result<Vec<EventEnvelope<A>>, LoadError> {
        let events = tokio::time::timeout(LOAD_LIMIT, self.streams.get_events::<A>(id)).await;
        let events = events.context("took too long").and_then(|events| Ok(events?));
        let events = events.context("loading a stream").map_err(LoadError::Unavailable)?;
        let events: anyhow::Result<_> = events.into_iter().map(decode).collect();
        events.context("reading a stream").map_err(LoadError::Unreadable)
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
        self.read(id).await.map_err(|error| AggregateError::UnexpectedError(error.into()))
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

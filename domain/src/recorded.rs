//! An event with what the store knows of it: its position, stream, sequence and time.

use std::fmt;

use chrono::{DateTime, Utc};
use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::Slug;

/// The number of an event in the whole store: 1, 2, 3 … without a hole, in commit order. Zero is the
/// place before the first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    pub const ZERO: Self = Self(0);

    /// As Postgres holds it.
    pub fn to_i64(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// From Postgres, where the positions of events are above zero.
    pub fn from_i64(position: i64) -> Self {
        Self(u64::try_from(position).unwrap_or(0))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point in the log of one partition: an event by its position and its id. The id tells two histories
/// apart that gave the same position to different events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    pub position: Position,
    pub event_id: Uuid,
}

impl Point {
    /// Before the first event.
    pub const START: Self = Self { position: Position::ZERO, event_id: Uuid::nil() };
}

/// An event as it was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<E> {
    pub position: Position,
    pub event_id: Uuid,
    /// The id of the aggregate whose stream it belongs to.
    pub stream_id: String,
    /// Its number in that stream, from one.
    pub sequence: u64,
    /// By the clock of the store: one clock for all writers.
    pub recorded_at: DateTime<Utc>,
    pub payload: E,
}

impl<E> Recorded<E> {
    /// Where a watermark stands after this event.
    pub fn point(&self) -> Point {
        Point { position: self.position, event_id: self.event_id }
    }

    /// The same event, its payload read as something else.
    pub fn try_map<F, Error>(
        self,
        read: impl FnOnce(E) -> Result<F, Error>,
    ) -> Result<Recorded<F>, Error> {
        Ok(Recorded {
            position: self.position,
            event_id: self.event_id,
            stream_id: self.stream_id,
            sequence: self.sequence,
            recorded_at: self.recorded_at,
            payload: read(self.payload)?,
        })
    }
}

/// A payload that nobody has read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// Context and fact: `post.published`.
    pub event_type: String,
    /// Counts up when the shape of the payload changes.
    pub event_version: String,
    pub json: String,
    /// W3C trace context of the request that caused it.
    pub traceparent: Option<String>,
}

/// An event of one context, as it is stored and sent.
pub trait StoredEvent: DomainEvent {
    /// Every type that this program writes, in the version in which it does.
    const KNOWN: &'static [(&'static str, &'static str)];

    /// How events of older versions are read, oldest first: each goes through all the steps it meets.
    const UPCASTS: &'static [Upcast] = &[];

    /// The slug that its aggregate claims by this event.
    fn claimed_slug(&self) -> Option<&Slug> {
        None
    }

    /// Reads an event.
    fn decode(event: Recorded<RawEvent>) -> Result<Recorded<Self>, Undecodable> {
        event.try_map(|raw| Self::parse(&raw.event_type, &raw.event_version, &raw.json))
    }

    /// Reads a payload from JSON text. An event of the present version goes straight to its type.
    fn parse(event_type: &str, version: &str, json: &str) -> Result<Self, Undecodable> {
        let unreadable =
            |source| Undecodable::Payload { event_type: event_type.to_owned(), source };
        if Self::KNOWN.contains(&(event_type, version)) {
            return serde_json::from_str(json).map_err(unreadable);
        }
        Self::read(event_type, version, serde_json::from_str(json).map_err(unreadable)?)
    }

    /// Reads a payload, an older one as it would be written today. One of a type or version not known here
    /// is refused, never guessed at.
    fn read(event_type: &str, version: &str, mut payload: Value) -> Result<Self, Undecodable> {
        let mut name = (event_type, version);
        for step in Self::UPCASTS {
            if step.from == name {
                name = step.to;
                payload = (step.payload)(payload);
            }
        }
        if !Self::KNOWN.contains(&name) {
            let (event_type, event_version) = (event_type.to_owned(), version.to_owned());
            return Err(Undecodable::Unknown { event_type, event_version });
        }
        let event_type = event_type.to_owned();
        serde_json::from_value(payload)
            .map_err(|source| Undecodable::Payload { event_type, source })
    }
}

/// Declares type and version of each event of a context. One table makes the `match` and the list of names, so the
/// two cannot differ.
macro_rules! event_names {
    (impl $event:ident { $($pattern:pat => ($event_type:literal, $version:literal)),+ $(,)? }) => {
        impl $event {
            const NAMES: &'static [(&'static str, &'static str)] = &[$(($event_type, $version)),+];

            fn name(&self) -> (&'static str, &'static str) {
                match self {
                    $($pattern => ($event_type, $version),)+
                }
            }
        }
    };
}
pub(crate) use event_names;

/// A step from one version of an event to a later one. It is taken whenever the event is read; what is stored
/// stays as it was written.
#[derive(Debug, Clone, Copy)]
pub struct Upcast {
    /// Type and version.
    pub from: (&'static str, &'static str),
    pub to: (&'static str, &'static str),
    /// The payload in its later form. One that is not as expected may come back in whatever form reading
    /// refuses, but must not be a reason to panic.
    pub payload: fn(Value) -> Value,
}

/// An event that this program cannot read.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    #[error("no event of type `{event_type}`, version `{event_version}`, is known here")]
    Unknown { event_type: String, event_version: String },
    #[error("the payload of an event of type `{event_type}` cannot be read")]
    Payload { event_type: String, source: serde_json::Error },
}

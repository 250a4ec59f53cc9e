//! What every answer says about its age.

use axum::http::{HeaderName, HeaderValue};
use domain::Position;

/// How far the source of an answer had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// Every event at or below it that concerns the answer is in it.
    pub(crate) position: Position,
    pub(crate) source: Source,
    /// How long ago it was read from there, in whole seconds.
    pub(crate) age_seconds: u64,
    /// It is known to be behind, or to lack something.
    pub(crate) stale: bool,
}

/// What an answer was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Memory,
    Redis,
    Log,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Log => "log",
        }
    }
}

impl Freshness {
    pub(crate) const HEADER: HeaderName = HeaderName::from_static("freshness");

    /// Of what is read at this moment.
    pub(crate) fn now(position: Position, source: Source, stale: bool) -> Self {
        Self { position, source, age_seconds: 0, stale }
    }

    /// Of what is made of both: as the less fresh of them.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            position: self.position.min(other.position),
            age_seconds: self.age_seconds.max(other.age_seconds),
            stale: self.stale || other.stale,
            ..self
        }
    }

    /// The same, known to be behind if that is so.
    pub(crate) fn stale_if(self, is_stale: bool) -> Self {
        Self { stale: self.stale || is_stale, ..self }
    }

    /// The header: a dictionary (RFC 9651).
    pub(crate) fn to_header(self) -> HeaderValue {
        let Self { position, source, age_seconds, stale } = self;
        let stale = if stale { ", stale" } else { "" };
        let text =
            format!("position={position}, source={}, age={age_seconds}{stale}", source.name());
        // Names and numbers are visible ASCII.
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("stale"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_is_told_only_where_it_is_known() {
        let fresh = Freshness::now(Position(7), Source::Redis, false);
        assert_eq!(fresh.to_header(), "position=7, source=redis, age=0");
        let stale = Freshness { stale: true, source: Source::Memory, age_seconds: 12, ..fresh };
        assert_eq!(stale.to_header(), "position=7, source=memory, age=12, stale");
    }
}

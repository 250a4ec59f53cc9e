//! What every answer says about its age.

use domain::Position;

/// How far the source of an answer had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// Every event at or below it that concerns the answer is in it.
    pub(crate) position: Position,
    pub(crate) source: Source,
    /// It is known to be behind, or to lack something.
    pub(crate) stale: bool,
}

/// What an answer was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Redis,
    Log,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Log => "log",
        }
    }
}

impl Freshness {
    pub(crate) const HEADER: &'static str = "freshness";

    /// The header: a dictionary (RFC 9651). Nothing is kept in this process, so the age is none.
    pub(crate) fn to_header(self) -> String {
        let stale = if self.stale { ", stale" } else { "" };
        format!("position={}, source={}, age=0{stale}", self.position, self.source.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staleness_is_told_only_where_it_is_known() {
        let fresh = Freshness { position: Position(7), source: Source::Redis, stale: false };
        assert_eq!(fresh.to_header(), "position=7, source=redis, age=0");
        let stale = Freshness { stale: true, source: Source::Log, ..fresh };
        assert_eq!(stale.to_header(), "position=7, source=log, age=0, stale");
    }
}

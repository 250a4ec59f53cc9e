//! What an answer must not lack, because its reader has seen it already.

use domain::{Partition, Position};
use http_api::ConsistencyToken;

use crate::post::Post;

/// What a consistency token demands of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Demand {
    Nothing,
    /// Every event at or below this position, given in this life of the store.
    UpTo {
        incarnation: u32,
        position: Position,
    },
}

impl Demand {
    /// What is demanded of the pages of a partition.
    pub(crate) fn of(token: Option<&ConsistencyToken>, partition: Partition) -> Self {
        let of_token = |token: &ConsistencyToken| {
            let position = *token.positions.get(&partition)?;
            Some(Self::UpTo { incarnation: token.incarnation, position })
        };
        token.and_then(of_token).unwrap_or(Self::Nothing)
    }

    /// Whether a post that was found in the views has it. One of another life of the store has not: what
    /// its positions mean is something else.
    pub(crate) fn is_met_by(self, post: &Post) -> bool {
        match self {
            Self::Nothing => true,
            Self::UpTo { incarnation, position } => {
                post.incarnation == incarnation && post.includes(position)
            }
        }
    }

    /// The same of a post that was just folded from the log, which may be in a later life than this process
    /// has heard of.
    pub(crate) fn is_met_by_log(self, post: &Post) -> bool {
        match self {
            Self::Nothing => true,
            Self::UpTo { incarnation, position } => {
                post.incarnation <= incarnation && post.includes(position)
            }
        }
    }

    /// How far a fold must reach to be of use.
    pub(crate) fn position(self) -> Position {
        match self {
            Self::Nothing => Position::ZERO,
            Self::UpTo { position, .. } => position,
        }
    }
}

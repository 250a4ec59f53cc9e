//! What can have happened to a post, and the names under which it is stored and sent.

use cqrs_es::DomainEvent;
use serde::{Deserialize, Serialize};

use super::{PostChanges, PostContent};
use crate::recorded::event_names;
use crate::{AuthorId, Slug, StoredEvent};

/// Who wrote a post, by the name they had then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    pub id: AuthorId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A fact about a post. Its time is that of its recording.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PostEvent {
    Drafted {
        author: Author,
        content: PostContent,
        /// Only where the author asked for one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slug: Option<Slug>,
    },
    /// The slug is kept here because the rules of transliteration change between versions.
    Published {
        slug: Slug,
    },
    Revised {
        changes: PostChanges,
        /// The new one, if it has changed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slug: Option<Slug>,
    },
    Unpublished {},
    Deleted {},
}

event_names! {
    impl PostEvent {
        Self::Drafted { .. } => ("post.drafted", "1"),
        Self::Published { .. } => ("post.published", "1"),
        Self::Revised { .. } => ("post.revised", "1"),
        Self::Unpublished {} => ("post.unpublished", "1"),
        Self::Deleted {} => ("post.deleted", "1"),
    }
}

impl DomainEvent for PostEvent {
    fn event_type(&self) -> String {
        self.name().0.to_owned()
    }

    fn event_version(&self) -> String {
        self.name().1.to_owned()
    }
}

impl StoredEvent for PostEvent {
    const KNOWN: &'static [(&'static str, &'static str)] = Self::NAMES;

    fn claimed_slug(&self) -> Option<&Slug> {
        match self {
            Self::Drafted { slug, .. } | Self::Revised { slug, .. } => slug.as_ref(),
            Self::Published { slug } => Some(slug),
            Self::Unpublished {} | Self::Deleted {} => None,
        }
    }
}

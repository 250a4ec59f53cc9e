//! The lists that a post is in: all published posts, those with a tag, those of an author; and an author's
//! own, drafts included.
//!
//! Each partition keeps its own part of every list as a sorted set whose scores are all zero, so that it is
//! ordered by its members alone; a reader merges the parts. A member is a [`Place`], which is unique, so
//! paging goes on behind the last one shown, whatever came or went before it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use domain::post::{Status, Tag, TagSlug};
use domain::{AuthorId, PostId};
use serde::Deserialize;

use crate::{PostPage, StoredPage};

/// Which list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListName {
    Published,
    Tag(TagSlug),
    /// What an author has published, as everybody sees it.
    Author(AuthorId),
    /// All that an author has written. This list and the next two are for that author's eyes alone.
    Own(AuthorId),
    OwnDrafts(AuthorId),
    OwnPublished(AuthorId),
}

impl ListName {
    /// Whether a post belongs here: one that was read after the list may have left it meanwhile. Its author it
    /// never changes.
    pub fn shows(&self, page: &StoredPage) -> bool {
        match self {
            Self::Published | Self::Author(_) | Self::OwnPublished(_) => page.published,
            Self::Tag(tag) => page.published && has_tag(page, tag),
            Self::OwnDrafts(_) => !page.published,
            Self::Own(_) => true,
        }
    }
}

fn has_tag(page: &StoredPage, slug: &TagSlug) -> bool {
    #[derive(Deserialize)]
    struct Tags {
        tags: Vec<Tag>,
    }
    let card = serde_json::from_slice::<Tags>(&page.card);
    card.is_ok_and(|card| card.tags.iter().any(|tag| tag.slug().as_ref() == Some(slug)))
}

impl fmt::Display for ListName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Published => f.write_str("published"),
            Self::Tag(tag) => write!(f, "tag:{}", tag.as_str()),
            Self::Author(author) => write!(f, "author:{author}"),
            Self::Own(author) => write!(f, "own:{author}"),
            Self::OwnDrafts(author) => write!(f, "own-drafts:{author}"),
            Self::OwnPublished(author) => write!(f, "own-published:{author}"),
        }
    }
}

/// Where a post stands in a list: a time, then its id. The time is that of its first publication, or in its
/// author's own lists that of its creation: a draft has no other, and a post that is published or taken back
/// stays where its author knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Microseconds since 1970.
    micros: u64,
    pub post_id: PostId,
}

impl Place {
    pub fn new(at: DateTime<Utc>, post_id: PostId) -> Self {
        Self { micros: u64::try_from(at.timestamp_micros()).unwrap_or(0), post_id }
    }
}

/// Sixteen digits of time, then the id: ordered as text as the places are.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.micros, self.post_id)
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let malformed = "not a place in a list";
        let (micros, post_id) = text.split_once(':').ok_or(malformed)?;
        let place = Self {
            micros: u64::from_str_radix(micros, 16).map_err(|_| malformed)?,
            post_id: post_id.parse().map_err(|_| malformed)?,
        };
        // There is one way to write it, or two texts would name one place.
        if place.to_string() == text { Ok(place) } else { Err(malformed) }
    }
}

/// In which lists a page is, and where it stands in each.
pub(crate) fn memberships(page: &PostPage) -> Vec<(ListName, Place)> {
    let card = &page.card;
    let published_at = card.published_at.filter(|_| card.status == Status::Published);
    let created = Place::new(page.created_at, card.id);
    let mut lists = vec![];
    if let Ok(author) = card.author.id.parse::<AuthorId>() {
        lists.push((ListName::Own(author.clone()), created));
        match published_at {
            None => lists.push((ListName::OwnDrafts(author), created)),
            Some(at) => {
                lists.push((ListName::OwnPublished(author.clone()), created));
                lists.push((ListName::Author(author), Place::new(at, card.id)));
            }
        }
    }
    if let Some(at) = published_at {
        let tags = card.tags.iter().filter_map(Tag::slug).map(ListName::Tag);
        let public = [ListName::Published].into_iter().chain(tags);
        lists.extend(public.map(|list| (list, Place::new(at, card.id))));
    }
    lists
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn places_are_ordered_as_text_as_they_are_in_time() {
        let place = |micros, id| Place { micros, post_id: PostId(Uuid::from_u128(id)) };
        let places = [place(9, 1), place(10, 2), place(10, 3), place(1 << 50, 0)];
        assert!(places.is_sorted());
        assert!(places.map(|place| place.to_string()).is_sorted());
    }

    #[test]
    fn a_place_is_read_back_as_it_was_written_and_in_no_other_way() {
        let place = Place { micros: 1_777_863_721_123_456, post_id: PostId(Uuid::from_u128(7)) };
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in
            ["", "x", "1:00000000-0000-0000-0000-000000000007", &place.to_string().to_uppercase()]
        {
            assert!(bad.parse::<Place>().is_err(), "{bad} was accepted");
        }
    }
}

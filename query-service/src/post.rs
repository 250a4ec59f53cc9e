//! A post as one may see it who asks for it.

use std::time::Instant;

use axum::http::HeaderValue;
use bytes::Bytes;
use domain::{AuthorId, Position, Slug};
use http_api::etag;
use read_model::{StoredPage, StoredRow};
use serde::Deserialize;

use crate::freshness::Freshness;
use crate::reads::Found;

#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) sight: Sight,
    /// Of the last event in it.
    pub(crate) position: Position,
    pub(crate) incarnation: u32,
    /// As it was read: what is kept of it grows old.
    pub(crate) freshness: Freshness,
    /// When it began to be read.
    pub(crate) begun: Instant,
}

#[derive(Debug, Clone)]
pub(crate) enum Sight {
    Page(Page),
    Gone,
    /// It is not there, or not for whoever asks.
    Nothing,
}

#[derive(Debug, Clone)]
pub(crate) struct Page {
    /// Where it stands now; drafts stand nowhere.
    pub(crate) slug: Option<Slug>,
    pub(crate) etag: HeaderValue,
    pub(crate) body: Bytes,
    pub(crate) is_draft: bool,
}

impl Post {
    /// What is published, for everybody; and a draft for its author.
    pub(crate) fn of(found: &Found, reader: Option<&AuthorId>) -> Self {
        let position = found.row.as_ref().map_or(Position::ZERO, |row| row.position);
        let sight = match &found.row {
            None => Sight::Nothing,
            // To others, a draft that was deleted looks like one that never existed.
            Some(StoredRow { page: None, was_published: false, .. }) => Sight::Nothing,
            Some(StoredRow { page: None, .. }) => Sight::Gone,
            Some(StoredRow { page: Some(page), .. })
                if page.published || reader.is_some_and(|reader| is_written_by(page, reader)) =>
            {
                let body = page.to_json();
                Sight::Page(Page {
                    slug: page.slug.clone(),
                    etag: etag::of_post(version_of(page), &body),
                    body,
                    is_draft: !page.published,
                })
            }
            Some(StoredRow { page: Some(_draft), .. }) => Sight::Nothing,
        };
        let Found { incarnation, freshness, begun, .. } = *found;
        Self { sight, position, incarnation, freshness, begun }
    }

    /// Whether everything that happened to the post up to a position is in it.
    pub(crate) fn includes(&self, position: Position) -> bool {
        // One that is stale stands before an event that its watermark has passed.
        let passed = if self.freshness.stale { Position::ZERO } else { self.freshness.position };
        self.position.max(passed) >= position
    }

    /// The same, known to be behind if that is so.
    pub(crate) fn stale_if(mut self, is_stale: bool) -> Self {
        self.freshness.stale |= is_stale;
        self
    }
}

/// Version of the post; 0, which no post has, where the card cannot be read.
fn version_of(page: &StoredPage) -> u64 {
    #[derive(Deserialize)]
    struct Card {
        version: u64,
    }
    serde_json::from_slice::<Card>(&page.card).map_or(0, |card| card.version)
}

fn is_written_by(page: &StoredPage, reader: &AuthorId) -> bool {
    #[derive(Deserialize)]
    struct Card {
        author: Author,
    }
    #[derive(Deserialize)]
    struct Author {
        id: AuthorId,
    }
    serde_json::from_slice::<Card>(&page.card).is_ok_and(|card| card.author.id == *reader)
}

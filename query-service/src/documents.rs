//! Documents that are made of many posts: the feed and the sitemap. Each is built once for all who ask at the same
//! time (single flight).
//!
//! A document is whole or there is none: one that lacks posts would be taken for the whole by caches and by readers
//! of feeds. While none can be built, the last whole one is a stale copy.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use domain::PostId;
use http_api::ConsistencyToken;

use crate::answer::{IfNoneMatch, VARY, etag_of_bytes};
use crate::freshness::{Freshness, Source};
use crate::metrics::{STALE, count_read};
use crate::reads::flights::Flights;
use crate::reads::{List, Reach, ReadError};
use crate::routes::Service;

/// Documents of one kind: those being built, and the last whole one.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    building: Flights<(), Result<Arc<Document>, ReadError>>,
    last: Arc<Mutex<Option<Arc<Document>>>>,
}

#[derive(Debug)]
pub(crate) struct Document {
    body: Bytes,
    etag: HeaderValue,
    /// The bytes of each post's entry, in their order.
    entries: Vec<(PostId, Range<usize>)>,
    is_whole: bool,
    origin: Origin,
}

/// Where the lists that a document is made of come from.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Of the least fresh of them.
    freshness: Freshness,
    /// The earliest incarnation that a part of them is of.
    incarnation: u32,
    /// How far the partitions had come when the first of them was read.
    reach: Reach,
    begun: Instant,
}

/// A document as one reader is shown it.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) freshness: Freshness,
    body: Bytes,
    etag: HeaderValue,
}

impl Origin {
    /// The origin of a first list, unless posts are missing from it.
    pub(crate) fn of(list: &List, begun: Instant) -> Result<Self, ReadError> {
        let List { freshness, incarnation, ref reach, is_whole, .. } = *list;
        let origin = Self { freshness, incarnation, reach: reach.clone(), begun };
        if is_whole { Ok(origin) } else { Err(ReadError::Unavailable) }
    }

    /// The origin of these and of one more list.
    pub(crate) fn and(self, list: &List) -> Result<Self, ReadError> {
        let freshness = self.freshness.and(list.freshness);
        let incarnation = self.incarnation.min(list.incarnation);
        let origin = Self { freshness, incarnation, ..self };
        if list.is_whole { Ok(origin) } else { Err(ReadError::Unavailable) }
    }
}

impl Document {
    pub(crate) fn new(body: String, entries: Vec<(PostId, Range<usize>)>, origin: Origin) -> Self {
        let etag = etag_of_bytes(body.as_bytes());
        Self { body: body.into(), etag, entries, is_whole: true, origin }
    }

    /// Marks the document as one that lacks something.
    pub(crate) fn lacking(mut self) -> Self {
        self.is_whole = false;
        self.origin.freshness.stale = true;
        self
    }

    fn includes(&self, token: Option<&ConsistencyToken>) -> bool {
        token.is_none_or(|token| self.origin.reach.lacks(token).is_empty())
    }

    /// This document as it was built, without the entries of posts that were withdrawn meanwhile.
    fn just_built(
        &self,
        token: Option<&ConsistencyToken>,
        is_withdrawn: impl Fn(PostId) -> bool,
    ) -> Shown {
        let stale = self.origin.freshness.stale || !self.includes(token);
        let freshness = Freshness { stale, ..self.origin.freshness };
        let shown = Shown { freshness, body: self.body.clone(), etag: self.etag.clone() };
        self.without(shown, is_withdrawn)
    }

    fn cached_copy(&self, stale: bool) -> Shown {
        let age_seconds = self.origin.begun.elapsed().as_secs();
        let freshness =
            Freshness { source: Source::Memory, age_seconds, stale, ..self.origin.freshness };
        Shown { freshness, body: self.body.clone(), etag: self.etag.clone() }
    }

    /// This document as a stale copy, without the entries of withdrawn posts.
    fn stale_copy(&self, is_withdrawn: impl Fn(PostId) -> bool) -> Shown {
        self.without(self.cached_copy(true), is_withdrawn)
    }

    /// Cuts the entries of withdrawn posts out of what is shown of this document.
    fn without(&self, mut shown: Shown, is_withdrawn: impl Fn(PostId) -> bool) -> Shown {
        if self.entries.iter().any(|(id, _)| is_withdrawn(*id)) {
            let (mut body, mut end) = (Vec::with_capacity(self.body.len()), 0);
            for (_, entry) in self.entries.iter().filter(|(id, _)| is_withdrawn(*id)) {
                body.extend_from_slice(&self.body[end..entry.start]);
                end = entry.end;
            }
            body.extend_from_slice(&self.body[end..]);
            shown.etag = etag_of_bytes(&body);
            shown.body = body.into();
        }
        shown
    }
}

impl Documents {
    /// The document for a reader: one built less than `lifetime` ago, or else a new one that includes what the reader's
    /// token stands for, or else the last whole one, which is stale.
    pub(crate) async fn get<F>(
        &self,
        service: &Service,
        token: Option<&ConsistencyToken>,
        lifetime: Duration,
        build: impl Fn(Service) -> F,
    ) -> Result<Shown, ReadError>
    where
        F: Future<Output = Result<Document, ReadError>> + Send + 'static,
    {
        let is_withdrawn = |id| service.memory.withdrawn().contains(id);
        if let Some(last) = self.last(service, lifetime)
            && !last.origin.freshness.stale
            && !last.entries.iter().any(|(id, _)| is_withdrawn(*id))
            && last.includes(token)
        {
            return Ok(last.cached_copy(false));
        }
        if let Some(token) = token {
            service.reads.wait_for(token).await;
        }
        let mut built = self.build(service, &build).await;
        // A flight that was joined may have begun before the views had come so far.
        if built.as_ref().is_ok_and(|document| !document.includes(token)) {
            built = self.build(service, &build).await;
        }
        match (built, self.last(service, Duration::MAX)) {
            (Ok(document), _) => Ok(document.just_built(token, is_withdrawn)),
            (Err(_), Some(last)) => Ok(last.stale_copy(is_withdrawn)),
            (Err(error), None) => Err(error),
        }
    }

    async fn build<F>(
        &self,
        service: &Service,
        build: &impl Fn(Service) -> F,
    ) -> Result<Arc<Document>, ReadError>
    where
        F: Future<Output = Result<Document, ReadError>> + Send + 'static,
    {
        let begin = || {
            let (built, last) = (build(service.clone()), self.last.clone());
            async move {
                let document = Arc::new(built.await?);
                if document.is_whole {
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(document.clone());
                }
                Ok(document)
            }
        };
        self.building.join(&(), begin).await.unwrap_or(Err(ReadError::Unavailable))
    }

    /// The last whole document, if it is not older and of the store's present incarnation.
    fn last(&self, service: &Service, max_age: Duration) -> Option<Arc<Document>> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let is_young = last.origin.begun.elapsed() < max_age;
        let is_sent = is_young
            && service.memory.may_be_sent(last.origin.begun)
            && service.reads.is_present(last.origin.incarnation);
        is_sent.then_some(last)
    }
}

impl Shown {
    /// Marks what is shown as behind, if it is.
    pub(crate) fn stale_if(self, is_stale: bool) -> Self {
        Self { freshness: self.freshness.stale_if(is_stale), ..self }
    }

    /// The whole document, or 304 where the reader has it already.
    pub(crate) fn unless_known(
        self,
        known: &IfNoneMatch,
        view: &'static str,
        media_type: &'static str,
        caching: &'static str,
    ) -> Response {
        let Self { freshness, body, etag } = self;
        let is_copy = freshness.stale && freshness.source == Source::Memory;
        count_read(view, if is_copy { STALE } else { freshness.source.name() });
        let headers = [(header::CACHE_CONTROL, caching), (header::VARY, VARY)];
        let is_known = known.includes(&etag);
        let own = [(header::ETAG, etag), (Freshness::HEADER, freshness.to_header())];
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers, own).into_response();
        }
        (headers, own, [(header::CONTENT_TYPE, media_type)], Body::from(body)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use domain::Position;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_stale_copy_leaves_out_the_entries_of_withdrawn_posts() {
        let id = |number| PostId(Uuid::from_u128(number));
        let origin = Origin {
            freshness: Freshness::now(Position(7), Source::Redis, false),
            incarnation: 1,
            reach: Reach::default(),
            begun: Instant::now(),
        };
        let entries = vec![(id(1), 5..8), (id(2), 8..11), (id(3), 11..14)];
        let document = Document::new("head aa bb cc tail".to_owned(), entries, origin);
        let whole = document.stale_copy(|_| false);
        assert_eq!((&whole.body[..], whole.freshness.stale), (&b"head aa bb cc tail"[..], true));
        let without = document.stale_copy(|post| post == id(1) || post == id(3));
        assert_eq!(&without.body[..], b"head bb tail");
        assert_ne!(without.etag, whole.etag);
        let built = document.just_built(None, |post| post == id(2));
        assert_eq!((&built.body[..], built.freshness.stale), (&b"head aa cc tail"[..], false));
    }
}

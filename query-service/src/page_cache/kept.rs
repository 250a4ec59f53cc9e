//! What is kept, under which key, and what it weighs.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use domain::{Claim, Partition, PostId, Slug};
use quick_cache::{Equivalent, Weighter};

use super::moments::Moment;
use crate::answer::etag_of_bytes;
use crate::freshness::Freshness;
use crate::post::{Post, Sight};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Post(PostId),
    Slug(Slug),
    List(Box<str>),
}

/// A key that is looked for: who looks need not own it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Sought<'a> {
    Post(PostId),
    Slug(&'a str),
    List(&'a str),
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Post(Arc<Kept>),
    /// The post that a slug names, or named: in this life of the store, for good.
    Claim {
        incarnation: u32,
        claim: Claim,
    },
    /// A slug that named no post.
    Unclaimed {
        moment: Moment,
        read_at: Instant,
    },
    List(Arc<KeptList>),
}

/// A page of a list as it was last read, for when it cannot be read.
#[derive(Debug)]
pub(crate) struct KeptList {
    pub(crate) body: Bytes,
    /// Where the card of each post stands in the body.
    pub(crate) cards: Vec<(PostId, Range<usize>)>,
    pub(crate) etag: HeaderValue,
    /// The cursor behind it.
    pub(crate) next: Option<String>,
    pub(crate) incarnation: u32,
    pub(crate) freshness: Freshness,
    pub(crate) read_at: Instant,
}

impl KeptList {
    /// A page of these posts with their cards, each a JSON object.
    pub(crate) fn new(
        cards: &[(PostId, Bytes)],
        next: Option<String>,
        incarnation: u32,
        freshness: Freshness,
        read_at: Instant,
    ) -> Self {
        let length: usize = cards.iter().map(|(_, card)| card.len() + 1).sum();
        let mut body = Vec::with_capacity(length + 128);
        let mut ranges = Vec::with_capacity(cards.len());
        body.extend_from_slice(b"{\"items\":[");
        for (number, (id, card)) in cards.iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            ranges.push((*id, body.len()..body.len() + card.len()));
            body.extend_from_slice(card);
        }
        body.extend_from_slice(b"],\"next\":");
        match &next {
            // A cursor holds nothing that JSON would write otherwise.
            Some(cursor) => body.extend_from_slice(format!("\"{cursor}\"}}").as_bytes()),
            None => body.extend_from_slice(b"null}"),
        }
        let etag = etag_of_bytes(&body);
        Self { body: body.into(), cards: ranges, etag, next, incarnation, freshness, read_at }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = PostId> {
        self.cards.iter().map(|(id, _)| *id)
    }

    /// Returns this page without some posts.
    pub(super) fn without(&self, is_left_out: impl Fn(PostId) -> bool) -> Self {
        let left = self.cards.iter().filter(|(id, _)| !is_left_out(*id));
        let cards: Vec<_> = left.map(|(id, range)| (*id, self.body.slice(range.clone()))).collect();
        Self::new(&cards, self.next.clone(), self.incarnation, self.freshness, self.read_at)
    }
}

/// A post as it was read.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) post: Arc<Post>,
    pub(super) partition: Partition,
    /// What its page is sent with, while it has no age.
    pub(crate) headers: HeaderMap,
    pub(super) moment: Moment,
    /// Before it was read, to be exact.
    pub(crate) read_at: Instant,
}

impl Key {
    fn sought(&self) -> Sought<'_> {
        match self {
            Self::Post(id) => Sought::Post(*id),
            Self::Slug(slug) => Sought::Slug(slug.as_str()),
            Self::List(name) => Sought::List(name),
        }
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sought().hash(state);
    }
}

impl Equivalent<Key> for Sought<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self == key.sought()
    }
}

/// In bytes, roughly, and rather too much than too little.
#[derive(Debug, Clone)]
pub(super) struct ByBytes;

impl Weighter<Key, Value> for ByBytes {
    fn weight(&self, key: &Key, value: &Value) -> u64 {
        // What the library keeps for an entry: the key, the value, its place in two tables.
        const OF_THE_ENTRY: usize = 192;
        // A table of headers, and what is counted for those who share it.
        const OF_A_POST: usize = 320;
        const OF_A_PAGE: usize = 1600;
        const OF_A_LIST: usize = 480;
        const OF_A_CARD: usize = size_of::<(PostId, Range<usize>)>();
        let of_key = match key {
            Key::Post(_) => 0,
            Key::Slug(slug) => slug.as_str().len(),
            Key::List(name) => name.len(),
        };
        let of_value = match value {
            Value::Post(kept) => match &kept.post.sight {
                Sight::Page(page) => page.body.len() + OF_A_POST + OF_A_PAGE,
                Sight::Gone | Sight::Nothing => OF_A_POST,
            },
            Value::Claim { .. } | Value::Unclaimed { .. } => 0,
            Value::List(kept) => kept.body.len() + kept.cards.len() * OF_A_CARD + OF_A_LIST,
        };
        (OF_THE_ENTRY + of_key + of_value) as u64
    }
}

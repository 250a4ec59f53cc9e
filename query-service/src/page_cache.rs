//! Pages that were read lately, ready to be sent, bounded in bytes.
//!
//! What is kept is fresh until a change is announced or its lifetime is over. Then it stays as a stale copy,
//! for when nothing else answers.

mod kept;
mod listener;
mod moments;
mod withdrawn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use domain::{Claim, Position, PostId, Slug};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder};
use read_model::StorePosition;

use crate::answer::{Answer, Audience, IfNoneMatch};
use crate::config::Config;
use crate::demand::Demand;
use crate::freshness::{Freshness, Source};
use crate::post::{Page, Post, Sight};
use crate::reads::ReadError;
use crate::reads::flights::Flights;
use crate::standing::Standing;
use kept::{ByBytes, Key, Sought, Value};
use moments::{Moment, Moments};

pub(crate) use kept::{Kept, KeptList};
pub(crate) use listener::Listener;
pub(crate) use withdrawn::Withdrawn;

/// For how long anything is believed that no announcement may ever end: while none is heard, and of what is
/// not there.
const UNHEARD_LIFETIME: Duration = Duration::from_secs(1);

/// What a slug names never changes, so that is kept even where no page is, in so many bytes.
const BYTES_OF_CLAIMS: usize = 1 << 20;

/// The whole of a page must fit into one of the parts that are locked apart.
const BYTES_OF_A_PART: usize = 4 << 20;

/// Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct PageCache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cache: Cache<Key, Value, ByBytes>,
    /// If not, nothing is kept but what slugs name.
    keeps_pages: bool,
    moments: Arc<Moments>,
    withdrawn: Withdrawn,
    lifetime: Duration,
    /// Maximum age of a copy.
    stale_limit: Duration,
    standing: Standing,
    /// What surrounds every route puts these on its answer.
    added: HeaderMap,
    posts: Flights<(PostId, Moment, Position), Result<Arc<Post>, ReadError>>,
    slugs: Flights<(Slug, Moment), Result<Option<Claim>, ReadError>>,
}

/// A post, and how fresh it is by now.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) post: Arc<Post>,
    pub(crate) freshness: Freshness,
}

impl Seen {
    pub(crate) fn just_read(post: Arc<Post>) -> Self {
        Self { freshness: post.freshness, post }
    }

    fn kept(kept: &Kept) -> Self {
        let age_seconds = kept.read_at.elapsed().as_secs();
        let freshness = Freshness { source: Source::Memory, age_seconds, ..kept.post.freshness };
        Self { post: kept.post.clone(), freshness }
    }
}

impl PageCache {
    pub(crate) fn new(config: &Config, standing: Standing, added: HeaderMap) -> Self {
        let moments = Arc::new(Moments::new());
        let inner = Inner {
            cache: cache((config.memory_mib << 20).max(BYTES_OF_CLAIMS)),
            keeps_pages: config.memory_mib > 0,
            withdrawn: Withdrawn::new(moments.clone()),
            moments,
            lifetime: config.memory_lifetime(),
            stale_limit: config.memory_stale_limit(),
            standing,
            added,
            posts: Flights::new(),
            slugs: Flights::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.inner.keeps_pages
    }

    /// Posts that must not be shown from any copy.
    pub(crate) fn withdrawn(&self) -> &Withdrawn {
        &self.inner.withdrawn
    }

    /// Returns `true` if a copy read at that time may be sent while nothing else answers.
    pub(crate) fn may_be_sent(&self, read_at: Instant) -> bool {
        read_at.elapsed() < self.inner.stale_limit && self.inner.withdrawn.covers(read_at)
    }

    /// Puts a mark in place of what is kept of a post, which was withdrawn at a position.
    fn withdraw(&self, id: PostId, at: StorePosition) {
        self.inner.withdrawn.note(id, at);
        // What is put there between these two steps is not fresh, and the mark keeps it from being sent.
        self.inner.cache.remove(&Sought::Post(id));
    }

    /// A post as everybody may see it: as it is kept while that is fresh, or else as `read` finds it, once
    /// for all who ask in the same moment.
    pub(crate) async fn post<F>(
        &self,
        id: PostId,
        read: impl FnOnce() -> F,
    ) -> Result<Seen, ReadError>
    where
        F: Future<Output = Result<Post, ReadError>> + Send + 'static,
    {
        if let Some(kept) = self.fresh(id) {
            return Ok(Seen::kept(&kept));
        }
        self.read_post(id, Position::ZERO, read).await
    }

    /// The same where what is kept is known not to do, for it lacks what happened at a position.
    pub(crate) async fn read_post<F>(
        &self,
        id: PostId,
        lacks: Position,
        read: impl FnOnce() -> F,
    ) -> Result<Seen, ReadError>
    where
        F: Future<Output = Result<Post, ReadError>> + Send + 'static,
    {
        if !self.is_on() {
            // There is nothing to keep, and who asks Redis or the log shares that with others anyway.
            return read().await.map(|post| Seen::just_read(post.into()));
        }
        // Before the read begins: what is announced from here on ends what it finds, and whoever asks after
        // such an announcement does not join it.
        let moment = self.inner.moments.of_post(id);
        let begin = || {
            let (memory, read_at, read) = (self.clone(), Instant::now(), read());
            async move {
                let post = Arc::new(read.await?);
                // It may have been read by somebody who had begun before that moment.
                if post.begun >= read_at {
                    memory.keep(id, post.clone(), moment, read_at);
                }
                Ok(post)
            }
        };
        let post = Box::pin(self.inner.posts.join(&(id, moment, lacks), begin)).await;
        post.unwrap_or(Err(ReadError::Unavailable)).map(Seen::just_read)
    }

    /// The post that a slug names, or named: remembered, or as `read` finds it. That there is none is
    /// believed for a moment only, and the source of that is told.
    pub(crate) async fn claim<F>(
        &self,
        slug: &Slug,
        read: impl FnOnce() -> F,
    ) -> Result<Result<Claim, Source>, ReadError>
    where
        F: Future<Output = Result<Option<Claim>, ReadError>> + Send + 'static,
    {
        match self.get(Sought::Slug(slug.as_str())) {
            Some(Value::Claim { incarnation, claim }) if self.is_present(incarnation) => {
                Ok(Ok(claim))
            }
            Some(Value::Unclaimed { moment, read_at })
                if moment == self.inner.moments.of_slug(slug)
                    && read_at.elapsed() < self.lifetime_of_nothing() =>
            {
                Ok(Err(Source::Memory))
            }
            Some(
                Value::Post(_) | Value::Claim { .. } | Value::Unclaimed { .. } | Value::List(_),
            )
            | None => Ok(self.read_claim(slug, read).await?.ok_or(Source::Log)),
        }
    }

    /// The same without believing that there is none, as `read` finds it.
    pub(crate) async fn read_claim<F>(
        &self,
        slug: &Slug,
        read: impl FnOnce() -> F,
    ) -> Result<Option<Claim>, ReadError>
    where
        F: Future<Output = Result<Option<Claim>, ReadError>> + Send + 'static,
    {
        let moment = self.inner.moments.of_slug(slug);
        let begin = || {
            let (memory, read_at, read) = (self.clone(), Instant::now(), read());
            let (incarnation, slug) = (self.inner.standing.incarnation(), slug.clone());
            async move {
                let claim = read.await?;
                let value = match claim {
                    Some(claim) => Value::Claim { incarnation, claim },
                    None => Value::Unclaimed { moment, read_at },
                };
                memory.put(Key::Slug(slug), value);
                Ok(claim)
            }
        };
        let claim = self.inner.slugs.join(&(slug.clone(), moment), begin).await;
        claim.unwrap_or(Err(ReadError::Unavailable))
    }

    /// What is remembered of a slug, which does not change.
    pub(crate) fn known_claim(&self, slug: &str) -> Option<Claim> {
        match self.get(Sought::Slug(slug))? {
            Value::Claim { incarnation, claim } => self.is_present(incarnation).then_some(claim),
            Value::Post(_) | Value::Unclaimed { .. } | Value::List(_) => None,
        }
    }

    /// What is kept of a post, if it is fresh.
    pub(crate) fn fresh(&self, id: PostId) -> Option<Arc<Kept>> {
        self.kept(id).filter(|kept| self.is_fresh(id, kept))
    }

    /// The same for a reader who says what they have seen, if that is in it. That something is not there is not
    /// told them from memory.
    pub(crate) fn fresh_with(&self, id: PostId, demand: Demand) -> Option<Seen> {
        let kept = self.fresh(id)?;
        let is_there = match kept.post.sight {
            Sight::Page(_) | Sight::Gone => !kept.post.freshness.stale,
            Sight::Nothing => false,
        };
        (is_there && demand.is_met_by(&kept.post)).then(|| Seen::kept(&kept))
    }

    /// What is kept of a post, for when nothing else answers: it is known to be behind. That something is not
    /// there does not follow from its not having been there.
    pub(crate) fn stale_copy(&self, id: PostId) -> Option<Seen> {
        let kept = self.kept(id)?;
        let is_sent = match kept.post.sight {
            Sight::Page(_) => self.may_be_sent(kept.read_at) && !self.inner.withdrawn.contains(id),
            // A deleted post never comes back.
            Sight::Gone => true,
            Sight::Nothing => false,
        };
        let mut seen = Seen::kept(&kept);
        seen.freshness.stale = true;
        is_sent.then_some(seen)
    }

    /// Keeps a page of a list, as a copy only: it is always read anew where that is possible.
    pub(crate) fn keep_list(&self, name: &str, list: Arc<KeptList>) {
        self.put(Key::List(name.into()), Value::List(list));
    }

    /// The page of a list as it was last read, without the posts that were withdrawn since, and how fresh it is
    /// by now.
    pub(crate) fn list_copy(&self, name: &str) -> Option<(Arc<KeptList>, Freshness)> {
        let Some(Value::List(kept)) = self.get(Sought::List(name)) else { return None };
        if !self.is_present(kept.incarnation) || !self.may_be_sent(kept.read_at) {
            return None;
        }
        let age_seconds = kept.read_at.elapsed().as_secs();
        let freshness =
            Freshness { source: Source::Memory, age_seconds, stale: true, ..kept.freshness };
        let is_withdrawn = |id| self.inner.withdrawn.contains(id);
        let shown =
            if kept.ids().any(is_withdrawn) { Arc::new(kept.without(is_withdrawn)) } else { kept };
        Some((shown, freshness))
    }

    /// Nothing that was read until now is fresh any more: readers are answered from other views.
    pub(crate) fn end_all(&self) {
        self.inner.moments.end_all();
    }

    /// How much is kept, for whoever watches.
    pub(crate) fn measure(&self) {
        metrics::gauge!("memory_bytes").set(self.inner.cache.weight() as f64);
        metrics::gauge!("memory_entries").set(self.inner.cache.len() as f64);
    }

    fn keep(&self, id: PostId, post: Arc<Post>, moment: Moment, read_at: Instant) {
        let newer = |kept: Arc<Kept>| kept.post.position > post.position;
        // Of two reads the one that saw more may end first.
        if !self.is_on() || self.kept(id).is_some_and(newer) {
            return;
        }
        // A mark that still stands is later than what this read has seen.
        let is_page = matches!(post.sight, Sight::Page(_));
        if is_page && self.inner.withdrawn.contains(id) {
            return;
        }
        let headers = match &post.sight {
            // Nobody but its author reads a draft, and nobody is asked here who is reading.
            Sight::Page(page) if page.is_draft => return,
            Sight::Page(page) => self.headers(page, post.freshness),
            Sight::Gone | Sight::Nothing => HeaderMap::new(),
        };
        let partition = self.inner.standing.partitions.of(&id.to_string());
        let kept = Kept { post, partition, headers, moment, read_at };
        self.put(Key::Post(id), Value::Post(Arc::new(kept)));
    }

    fn headers(&self, page: &Page, freshness: Freshness) -> HeaderMap {
        let freshness = Freshness { source: Source::Memory, ..freshness };
        let (body, etag) = (page.body.clone(), page.etag.clone());
        let answer = Answer { body, etag, freshness, audience: Audience::Everybody };
        let mut headers = answer.unless_known(&IfNoneMatch::default()).into_parts().0.headers;
        for (name, value) in &self.inner.added {
            headers.append(name, value.clone());
        }
        headers
    }

    fn is_fresh(&self, id: PostId, kept: &Kept) -> bool {
        let lifetime = match kept.post.sight {
            Sight::Nothing => self.lifetime_of_nothing(),
            Sight::Page(_) | Sight::Gone if self.inner.moments.are_heard() => self.inner.lifetime,
            Sight::Page(_) | Sight::Gone => self.lifetime_of_nothing(),
        };
        kept.moment == self.inner.moments.of_post(id)
            && kept.read_at.elapsed() < lifetime
            && !self.is_overdue(kept)
    }

    /// Returns `true` if a page that was not stale when it was read may have become so since: its partition has
    /// moved on, and whether the views have is not known.
    fn is_overdue(&self, kept: &Kept) -> bool {
        let freshness = kept.post.freshness;
        let heads = &self.inner.standing.heads;
        !freshness.stale && heads.are_overdue(kept.partition, freshness.position)
    }

    fn lifetime_of_nothing(&self) -> Duration {
        self.inner.lifetime.min(UNHEARD_LIFETIME)
    }

    fn kept(&self, id: PostId) -> Option<Arc<Kept>> {
        match self.get(Sought::Post(id))? {
            Value::Post(kept) => self.is_present(kept.post.incarnation).then_some(kept),
            Value::Claim { .. } | Value::Unclaimed { .. } | Value::List(_) => None,
        }
    }

    /// Of a life that is over nothing is shown: it may never have happened.
    fn is_present(&self, incarnation: u32) -> bool {
        incarnation >= self.inner.standing.incarnation()
    }

    fn get(&self, key: Sought<'_>) -> Option<Value> {
        self.inner.cache.get(&key)
    }

    fn put(&self, key: Key, value: Value) {
        let is_kept = match value {
            Value::Claim { .. } => true,
            Value::Post(_) | Value::Unclaimed { .. } | Value::List(_) => self.is_on(),
        };
        if is_kept {
            self.inner.cache.insert(key, value);
        }
    }
}

fn cache(bytes: usize) -> Cache<Key, Value, ByBytes> {
    let parts = (bytes / BYTES_OF_A_PART).clamp(1, 64);
    let options = OptionsBuilder::new()
        .weight_capacity(bytes as u64)
        .estimated_items_capacity(bytes / 2048)
        .shards(parts)
        .build();
    // Fails only where one of the first two is not given.
    let options = options.unwrap_or_else(|error| unreachable!("{error}"));
    Cache::with_options(
        options,
        ByBytes,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}

#[cfg(test)]
mod tests;

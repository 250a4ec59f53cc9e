//! Where answers come from: Redis, and wherever that has nothing or is not there, the log.
//!
//! What a reader may see of them is the handlers' to judge.

mod batches;
mod demanded;
mod filler;
pub(crate) mod flights;
mod list;
mod log;
mod texts;
mod warm;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use bytes::Bytes;
use domain::{AuthorId, Claim, Partition, Partitions, Position, PostId, Slug};
use event_log::EventLog;
use http_api::Problem;
use read_model::{StorePosition, StoredRow, Views, Waiting, Watermark};

use crate::config::Config;
use crate::demand::Demand;
use crate::freshness::{Freshness, Source};
use crate::page_cache::Withdrawn;
use crate::post::{Post, Sight};
use crate::standing::Standing;
use filler::Filler;
use flights::Flights;
use log::{Folded, Log};
use warm::Warm;

pub(crate) use list::{List, Reach};
pub(crate) use texts::TextOf;

/// Reads posts and lists of them.
#[derive(Debug)]
pub(crate) struct Reads {
    warm: Warm,
    log: Log,
    filler: Filler,
    folds: Flights<Vec<PostId>, Result<Arc<Refold>, ReadError>>,
    renderings: Flights<(PostId, HeaderValue), Result<Bytes, ReadError>>,
    waiting: Waiting,
    withdrawn: Withdrawn,
    /// How long views have to come as far as a reader has seen them.
    token_wait: Duration,
}

/// A post as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// `None` if the log has no such post; Redis is not believed when it says so.
    pub(crate) row: Option<StoredRow>,
    pub(crate) incarnation: u32,
    pub(crate) freshness: Freshness,
    /// When it began to be read: it may lack what happened after that.
    pub(crate) begun: Instant,
}

/// State of a post in Redis.
enum Warmth {
    Found(Found),
    /// A row that is older than what this process has read before, for when nothing else answers.
    Behind(Found),
    /// Nothing that can be used; with the watermark under which a row can be offered, if only that is missing.
    Nothing(Option<Watermark>),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// Nothing that could answer does so in time.
    Unavailable,
    /// The same, and the views say that there is nothing to be shown: no older copy is, either.
    Withheld,
    /// The post holds an event that this program cannot read or fold, and before that there was nothing to show.
    Unreadable,
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable | ReadError::Withheld => {
                Self::unavailable("what you ask for cannot be looked up at the moment", 1)
            }
            ReadError::Unreadable => {
                Self::unavailable("this post cannot be shown at the moment", 60)
            }
        }
    }
}

/// What folding some pages gave, shared by all who waited for it.
#[derive(Debug)]
struct Refold {
    /// Of how many of the pages that were asked for, the first ones: all, unless they are too long together.
    count: usize,
    incarnation: u32,
    as_of: Position,
    rows: HashMap<PostId, StoredRow>,
    unreadable: HashSet<PostId>,
    begun: Instant,
}

type Marks = HashMap<Partition, Watermark>;

/// How many pages are folded together at most before it is known how long they are: those of one page of a list.
const FIRST_PAGES: usize = 100;

impl Reads {
    pub(crate) fn new(
        views: Views,
        log: EventLog,
        standing: Standing,
        waiting: Waiting,
        withdrawn: Withdrawn,
        config: &Config,
    ) -> Self {
        let log = Log::new(log, views.fold(), standing.clone(), config);
        let warm = Warm::new(views, standing, config);
        let filler = Filler::new(warm.clone(), log.clone());
        let token_wait = config.token_wait();
        let (folds, renderings) = (Flights::new(), Flights::new());
        Self { warm, log, filler, folds, renderings, waiting, withdrawn, token_wait }
    }

    pub(crate) fn partitions(&self) -> Partitions {
        self.warm.standing.partitions
    }

    /// Whether something was read in the store's present life: what was not may never have happened.
    pub(crate) fn is_present(&self, incarnation: u32) -> bool {
        incarnation >= self.warm.standing.incarnation()
    }

    pub(crate) fn partition_of(&self, id: PostId) -> Partition {
        self.warm.views.partition_of(id)
    }

    /// The post that a slug names, or named: that never changes within a life of the store.
    pub(crate) async fn claim_of(&self, slug: &Slug) -> Result<Option<Claim>, ReadError> {
        let incarnation = self.warm.standing.incarnation();
        let remembered = self.warm.answer(self.warm.views.claim_of(incarnation, slug)).await;
        if let Some(Some(claim)) = remembered {
            return Ok(Some(claim));
        }
        let claim = self.log.claim_of(slug).await?;
        if let Some(claim) = claim {
            self.filler.remember(incarnation, slug.clone(), claim);
        }
        Ok(claim)
    }

    /// A post as this reader may see it, or everybody.
    pub(crate) async fn post(
        &self,
        id: PostId,
        reader: Option<&AuthorId>,
    ) -> Result<Post, ReadError> {
        let found = self.find(id).await?;
        let post = Post::of(&found, reader);
        match (&post.sight, post.freshness.source) {
            // It may have been published since. That one is not there, only the log can say.
            (Sight::Nothing, Source::Redis) => {
                let refold = self.refold(id, reader, Demand::Nothing, Position::ZERO);
                Box::pin(refold).await.map_err(ReadError::withholding)
            }
            (Sight::Nothing, Source::Log | Source::Memory) => known_to_be_nothing(post),
            (Sight::Page(_) | Sight::Gone, _) => Ok(post),
        }
    }

    /// The same from the log, where what Redis has does not settle the question; with what happened up to the
    /// position where it claimed its slug.
    pub(crate) async fn refold(
        &self,
        id: PostId,
        reader: Option<&AuthorId>,
        demand: Demand,
        claimed: Position,
    ) -> Result<Post, ReadError> {
        // The projector brings the row up to date; a second hand would only be in its way.
        self.refold_with(id, reader, demand, claimed, None).await
    }

    /// The same, offered to a partition that has no row, with this watermark.
    async fn refold_with(
        &self,
        id: PostId,
        reader: Option<&AuthorId>,
        demand: Demand,
        claimed: Position,
        mark: Option<Watermark>,
    ) -> Result<Post, ReadError> {
        let needed = demand.position().max(claimed);
        let post = Post::of(&self.refold_under(id, mark, needed).await?, reader);
        let post = match post.sight {
            Sight::Nothing => known_to_be_nothing(post)?,
            Sight::Page(_) | Sight::Gone => post,
        };
        let is_met = demand.is_met_by_log(&post);
        Ok(post.stale_if(!is_met))
    }

    /// A post: as Redis has it, or else as the log does.
    async fn find(&self, id: PostId) -> Result<Found, ReadError> {
        // A fold is in a box, so that reads that need none do not carry the room for it with them.
        match self.row(id).await {
            Warmth::Found(found) => Ok(found),
            Warmth::Behind(old) => {
                let folded = Box::pin(self.refold_under(id, None, Position::ZERO)).await;
                self.or_old(folded, old)
            }
            Warmth::Nothing(mark) => Box::pin(self.refold_under(id, mark, Position::ZERO)).await,
        }
    }

    /// What was folded; or where the event store does not answer, what Redis has from before. Where marks of
    /// withdrawn posts were dropped, an old row might show one.
    fn or_old(&self, folded: Result<Found, ReadError>, old: Found) -> Result<Found, ReadError> {
        match folded {
            Err(ReadError::Unavailable) if self.withdrawn.are_complete() => Ok(old),
            outcome => outcome,
        }
    }

    /// A post as Redis has it.
    async fn row(&self, id: PostId) -> Warmth {
        let begun = Instant::now();
        let found = self.warm.row(id).await.unwrap_or_default();
        let (mark, row) = match (self.warm.valid(found.watermark), found.row) {
            (Some(mark), Some(row)) => (mark, row),
            (mark, _) => return Warmth::Nothing(mark),
        };
        let is_set_aside = found.quarantined.is_some();
        if !self.learn(id, &row, mark.at(), is_set_aside) {
            // The projector brings the row up to date; a second hand would only be in its way.
            return Warmth::Nothing(None);
        }
        let lags = self.warm.standing.lag(self.warm.views.partition_of(id), &mark);
        let stale = is_set_aside || found.is_behind || lags;
        let freshness = Freshness::now(mark.point.position, Source::Redis, stale);
        let incarnation = mark.incarnation;
        let read = Found { row: Some(row), incarnation, freshness, begun };
        if found.is_behind { Warmth::Behind(read) } else { Warmth::Found(read) }
    }

    /// Learns from a row whether its post is withdrawn. Returns `false` if the row shows the post, and this process
    /// knows that the post was withdrawn since. A page that is set aside lacks what happened after its row.
    fn learn(&self, id: PostId, row: &StoredRow, read_at: StorePosition, set_aside: bool) -> bool {
        let as_of = StorePosition { position: row.position, ..read_at };
        if row.is_withdrawn() {
            self.withdrawn.note(id, as_of);
        }
        let up_to = if set_aside { as_of } else { read_at.max(as_of) };
        !row.is_published() || self.withdrawn.admits(id, up_to)
    }

    /// Learns the same from what was folded.
    fn learn_from_fold(&self, id: PostId, row: &StoredRow, refold: &Refold) -> bool {
        let read_at = StorePosition { incarnation: refold.incarnation, position: refold.as_of };
        self.learn(id, row, read_at, refold.unreadable.contains(&id))
    }

    async fn refold_under(
        &self,
        id: PostId,
        mark: Option<Watermark>,
        needed: Position,
    ) -> Result<Found, ReadError> {
        let partition = self.warm.views.partition_of(id);
        let marks: Marks = mark.into_iter().map(|mark| (partition, mark)).collect();
        let needed = needed.max(self.withdrawn.since(id));
        let refold = self.fold_up_to(needed, vec![id], marks).await?;
        let is_shown = |row| self.learn_from_fold(id, row, &refold);
        if !refold.rows.get(&id).is_none_or(is_shown) {
            return Err(ReadError::Withheld);
        }
        let stale = refold.unreadable.contains(&id);
        let freshness = Freshness::now(refold.as_of, Source::Log, stale);
        let row = refold.rows.get(&id).cloned();
        Ok(Found { row, incarnation: refold.incarnation, freshness, begun: refold.begun })
    }

    /// Folds all these pages, a few at a time so that their histories are never in memory together, and has `take`
    /// see what came of each time.
    async fn fold_all(
        &self,
        needed: Position,
        ids: &[PostId],
        marks: &Marks,
        mut take: impl FnMut(&Refold),
    ) -> Result<(), ReadError> {
        let (mut rest, mut most) = (ids, FIRST_PAGES);
        while !rest.is_empty() {
            let asked = &rest[..most.min(rest.len())];
            let refold = self.fold_up_to(needed, asked.to_vec(), marks.clone()).await?;
            take(&refold);
            rest = &rest[refold.count..];
            // Those behind are most likely about as long.
            most = 2 * refold.count;
        }
        Ok(())
    }

    /// Folds the first of these pages. One fold that has been joined may have begun before the events up to `needed`
    /// were recorded; the next begins after that, if they ever were.
    async fn fold_up_to(
        &self,
        needed: Position,
        ids: Vec<PostId>,
        marks: Marks,
    ) -> Result<Arc<Refold>, ReadError> {
        let refold = self.fold(ids.clone(), marks.clone()).await?;
        if refold.as_of >= needed { Ok(refold) } else { self.fold(ids, marks).await }
    }

    /// Folds the first of these pages from the log, as many as are not too long together, once for all who ask for
    /// the same at the same time, and offers them to the partitions with these watermarks.
    async fn fold(&self, ids: Vec<PostId>, marks: Marks) -> Result<Arc<Refold>, ReadError> {
        let (log, filler, asked) = (self.log.clone(), self.filler.clone(), ids.clone());
        let fold = async move || {
            let begun = Instant::now();
            let (folded, count) = log.fold_first(&asked).await?;
            let refold = Refold::of(&folded, count, begun)?;
            filler.offer(folded, &marks);
            Ok(Arc::new(refold))
        };
        self.folds.join(&ids, fold).await.unwrap_or(Err(ReadError::Unavailable))
    }
}

impl ReadError {
    fn withholding(self) -> Self {
        match self {
            Self::Unavailable | Self::Withheld => Self::Withheld,
            Self::Unreadable => Self::Unreadable,
        }
    }
}

impl Refold {
    fn of(folded: &Folded, count: usize, begun: Instant) -> Result<Self, ReadError> {
        let stored = folded.rows.iter().map(|(id, row)| Ok((*id, StoredRow::try_from(row)?)));
        let rows: Result<_, serde_json::Error> = stored.collect();
        Ok(Self {
            count,
            incarnation: folded.incarnation,
            as_of: folded.as_of,
            rows: rows.map_err(|_| ReadError::Unreadable)?,
            unreadable: folded.unreadable.clone(),
            begun,
        })
    }
}

/// An event that this program cannot read or fold would have shown something that is not known here.
fn known_to_be_nothing(post: Post) -> Result<Post, ReadError> {
    if post.freshness.stale { Err(ReadError::Unreadable) } else { Ok(post) }
}

//! One page of a list: the parts of all partitions merged, and the cards of the posts that stand there.

use std::collections::HashMap;

use bytes::Bytes;
use domain::{Partition, Position, PostId};
use http_api::ConsistencyToken;
use read_model::{ListName, ListPart, Place, StoredPage, StoredRow, Views};

use super::{Marks, ReadError, Reads, Refold};
use crate::freshness::{Freshness, Source};

/// A page of a list.
#[derive(Debug)]
pub(crate) struct List {
    /// Of each post a JSON object, latest first.
    pub(crate) cards: Vec<(PostId, Bytes)>,
    /// The last place of this page, if there are more behind it.
    pub(crate) next: Option<Place>,
    /// The earliest life of the store that a part of it is of.
    pub(crate) incarnation: u32,
    pub(crate) freshness: Freshness,
    /// `false` while a partition is being filled: posts may be missing.
    pub(crate) is_whole: bool,
    /// How far each partition's part had come.
    pub(crate) reach: Reach,
}

/// How far the parts of a list had come, partition by partition: the incarnation and the position of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach(Vec<Option<(u32, Position)>>);

impl Reach {
    fn of(parts: &[ListPart]) -> Self {
        let reach = |part: &ListPart| {
            let mark = part.watermark.as_ref()?;
            Some((mark.incarnation, mark.point.position))
        };
        Self(parts.iter().map(reach).collect())
    }

    /// The positions that a token demands and that are not reached, in the same incarnation of the store.
    pub(crate) fn lacks(&self, token: &ConsistencyToken) -> Vec<(Partition, Position)> {
        let has_reached = |(partition, position): &(Partition, Position)| {
            let reached = self.0.get(usize::from(partition.0)).copied().flatten();
            reached.is_some_and(|(incarnation, reached)| {
                incarnation == token.incarnation && reached >= *position
            })
        };
        let pairs = token.positions.iter().map(|(partition, position)| (*partition, *position));
        pairs.filter(|pair| !has_reached(pair)).collect()
    }
}

/// What is shown of some posts in a list.
#[derive(Debug, Default)]
struct Cards {
    rows: HashMap<PostId, StoredRow>,
    /// Some of them stand before an event that cannot be folded.
    stale: bool,
}

/// Whether Redis is offered what it lacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Offers {
    Made,
    Omitted,
}

impl Reads {
    /// At most `limit` posts of a list behind `after`. Only Redis has lists; where any part of one cannot
    /// be had, there is no answer, lest posts be missing without anybody's noticing. For a reader who shows a
    /// token, the views have a moment to come as far; a list that still lacks some of it is stale.
    pub(crate) async fn list(
        &self,
        name: &ListName,
        after: Option<Place>,
        limit: usize,
        token: Option<&ConsistencyToken>,
    ) -> Result<List, ReadError> {
        self.list_of(name, after, limit, token, Offers::Made).await
    }

    /// The same for somebody who goes through a whole list: what Redis lacks of it stays out, for nobody asks for
    /// just that, and it would take the place of what readers use.
    pub(crate) async fn part_of_whole(
        &self,
        name: &ListName,
        after: Option<Place>,
        limit: usize,
    ) -> Result<List, ReadError> {
        self.list_of(name, after, limit, None, Offers::Omitted).await
    }

    async fn list_of(
        &self,
        name: &ListName,
        after: Option<Place>,
        limit: usize,
        token: Option<&ConsistencyToken>,
        offers: Offers,
    ) -> Result<List, ReadError> {
        // The places and the cards come from one generation, whatever is switched to meanwhile.
        let views = self.warm.views.of_generation(self.warm.views.generation());
        let ask = || self.warm.answer(views.list(name, after, limit + 1));
        let mut parts = ask().await.ok_or(ReadError::Unavailable)?;
        let mut reach = Reach::of(&parts);
        let mut behind = token.map_or_else(Vec::new, |token| reach.lacks(token));
        if let Some(token) = token.filter(|_| !behind.is_empty()) {
            self.reached(token.incarnation, &behind).await;
            // Some may have come as far even if not all have.
            parts = ask().await.unwrap_or(parts);
            reach = Reach::of(&parts);
            behind = reach.lacks(token);
        }
        // As old as the oldest part. One that is still being filled may lack posts.
        let mut freshness = Freshness::now(Position(u64::MAX), Source::Redis, !behind.is_empty());
        let (mut incarnation, mut is_whole) = (u32::MAX, true);
        let mut places: Vec<Place> = vec![];
        let partitions = self.partitions();
        for (partition, part) in partitions.all().zip(parts) {
            let ListPart { watermark, is_behind, places: part } = part;
            let mark = self.warm.valid(watermark).ok_or(ReadError::Unavailable)?;
            freshness.position = freshness.position.min(mark.point.position);
            is_whole &= mark.unfilled_below.is_none();
            freshness.stale |= is_behind || self.warm.standing.lag(partition, &mark);
            incarnation = incarnation.min(mark.incarnation);
            places.extend(part);
        }

        freshness.stale |= !is_whole;
        places.sort_unstable_by(|a, b| b.cmp(a));
        let more = places.len() > limit;
        places.truncate(limit);
        // Paging goes on behind the last place, whether or not its post is shown: thus none is skipped
        // or repeated when one of this page goes away.
        let next = places.last().copied().filter(|_| more);

        let ids: Vec<PostId> = places.iter().map(|place| place.post_id).collect();
        let needed = token.and_then(|token| token.positions.values().max().copied());
        let needed = needed.unwrap_or(Position::ZERO);
        let Cards { rows, stale } = self.cards(&views, &ids, needed, offers).await?;
        freshness.stale |= stale;
        let shown = |id: &PostId| {
            let page = rows.get(id)?.page.as_ref().filter(|page| name.shows(page))?;
            Some((*id, page.card.clone()))
        };
        let cards = ids.iter().filter_map(shown);
        Ok(List { cards: cards.collect(), next, incarnation, freshness, is_whole, reach })
    }

    /// The cards of these posts as Redis has them; of those that it lacks, as the log does.
    async fn cards(
        &self,
        views: &Views,
        ids: &[PostId],
        needed: Position,
        offers: Offers,
    ) -> Result<Cards, ReadError> {
        if ids.is_empty() {
            return Ok(Cards::default());
        }
        let answer = self.warm.answer(views.cards(ids)).await;
        let answer = answer.ok_or(ReadError::Unavailable)?;
        let mut rows = HashMap::with_capacity(ids.len());
        let mut stale = false;
        let mut missing = vec![];
        let mut marks = Marks::new();
        for (id, found) in ids.iter().zip(answer) {
            match (self.warm.valid(found.watermark), found.row) {
                (Some(mark), Some(row)) => {
                    let is_set_aside = found.quarantined.is_some();
                    // One that was withdrawn since is left out.
                    let is_shown = self.learn(*id, &row, mark.at(), is_set_aside);
                    // Redis may have gone back between the two exchanges.
                    stale |= is_set_aside || !is_shown || found.is_behind;
                    if is_shown {
                        rows.insert(*id, row);
                    }
                }
                (mark, _) => {
                    missing.push(*id);
                    let mark = mark.filter(|_| offers == Offers::Made);
                    marks.extend(mark.map(|mark| (self.warm.views.partition_of(*id), mark)));
                }
            }
        }
        let take = |refold: &Refold| {
            // One bad event must not take a whole list away: its post is shown as it was before, or, if it
            // was not there then, left out.
            stale |= !refold.unreadable.is_empty();
            let is_shown =
                |(id, row): &(&PostId, &StoredRow)| self.learn_from_fold(**id, row, refold);
            let shown = refold.rows.iter().filter(is_shown);
            rows.extend(shown.map(|(id, row)| (*id, without_text(row))));
        };
        self.fold_all(needed, &missing, &marks, take).await?;
        Ok(Cards { rows, stale })
    }
}

/// As Redis gives it for a list, which shows no texts.
fn without_text(row: &StoredRow) -> StoredRow {
    let page = |page: &StoredPage| StoredPage { content: Bytes::new(), ..page.clone() };
    StoredRow { page: row.page.as_ref().map(page), ..*row }
}

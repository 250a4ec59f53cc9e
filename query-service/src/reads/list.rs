//! One page of a list: the parts of all partitions merged, and the cards of the posts that stand there.

use std::collections::HashMap;

use bytes::Bytes;
use domain::{Position, PostId};
use read_model::{ListName, ListPart, Place, StoredPage, StoredRow};

use super::{Marks, ReadError, Reads};
use crate::freshness::{Freshness, Source};

/// A page of a list.
#[derive(Debug)]
pub(crate) struct List {
    /// Each a JSON object, latest first.
    pub(crate) cards: Vec<Bytes>,
    /// The last place of this page, if there are more behind it.
    pub(crate) next: Option<Place>,
    pub(crate) freshness: Freshness,
}

/// What is shown of some posts in a list.
#[derive(Debug, Default)]
struct Cards {
    rows: HashMap<PostId, StoredRow>,
    /// Some of them stand before an event that cannot be folded.
    stale: bool,
}

impl Reads {
    /// At most `limit` posts of a list behind `after`. Only Redis has lists; where any part of one cannot
    /// be had, there is no answer, lest posts be missing without anybody's noticing.
    pub(crate) async fn list(
        &self,
        name: &ListName,
        after: Option<Place>,
        limit: usize,
    ) -> Result<List, ReadError> {
        let answer = self.warm.answer(self.warm.views.list(name, after, limit + 1)).await;
        let parts = answer.ok_or(ReadError::Unavailable)?;
        // As old as the oldest part. One that is still being filled may lack posts.
        let mut freshness = Freshness::now(Position(u64::MAX), Source::Redis, false);
        let mut places: Vec<Place> = vec![];
        for ListPart { watermark, places: part } in parts {
            let mark = self.warm.valid(watermark).ok_or(ReadError::Unavailable)?;
            freshness.position = freshness.position.min(mark.point.position);
            freshness.stale |= mark.unfilled_below.is_some();
            places.extend(part);
        }

        places.sort_unstable_by(|a, b| b.cmp(a));
        let more = places.len() > limit;
        places.truncate(limit);
        // Paging goes on behind the last place, whether or not its post is shown: thus none is skipped
        // or repeated when one of this page goes away.
        let next = places.last().copied().filter(|_| more);

        let ids: Vec<PostId> = places.iter().map(|place| place.post_id).collect();
        let Cards { rows, stale } = self.cards(&ids).await?;
        freshness.stale |= stale;
        let shown = |id: &PostId| rows.get(id)?.page.as_ref().filter(|page| name.shows(page));
        let cards = ids.iter().filter_map(shown).map(|page: &StoredPage| page.card.clone());
        Ok(List { cards: cards.collect(), next, freshness })
    }

    /// The cards of these posts as Redis has them; of those that it lacks, as the log does.
    async fn cards(&self, ids: &[PostId]) -> Result<Cards, ReadError> {
        if ids.is_empty() {
            return Ok(Cards::default());
        }
        let answer = self.warm.answer(self.warm.views.cards(ids)).await;
        let answer = answer.ok_or(ReadError::Unavailable)?;
        let mut rows = HashMap::with_capacity(ids.len());
        let mut stale = false;
        let mut missing = vec![];
        let mut marks = Marks::new();
        for (id, found) in ids.iter().zip(answer) {
            match (self.warm.valid(found.watermark), found.row) {
                (Some(_), Some(row)) => {
                    stale |= found.quarantined.is_some();
                    rows.insert(*id, row);
                }
                (mark, _) => {
                    missing.push(*id);
                    marks.extend(mark.map(|mark| (self.warm.views.partition_of(*id), mark)));
                }
            }
        }
        if !missing.is_empty() {
            // One bad event must not take a whole list away: its post is shown as it was before, or, if it
            // was not there then, left out.
            let refold = self.fold(missing, marks).await?;
            stale |= !refold.unreadable.is_empty();
            rows.extend(refold.rows.iter().map(|(id, row)| (*id, row.clone())));
        }
        Ok(Cards { rows, stale })
    }
}

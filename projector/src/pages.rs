//! Whole pages, folded from the log: for rows that are missing, for filling, and for one that was set aside.

use std::collections::HashMap;

use anyhow::{Context, bail};
use domain::{Position, PostId};
use event_log::{EventLog, Histories, Unreadable};
use read_model::{Fill, Flag, FoldEnd, Guarded, Row, Views, fold_histories_caught};
use service_runtime::progress;

use crate::apply::Projection;

/// How often a page that became too old while it was folded is folded again.
const ATTEMPTS: usize = 5;

/// Pages as the log has them.
pub(crate) struct Folded {
    /// No event of these pages at or below this position is missing.
    pub as_of: Position,
    pub rows: HashMap<PostId, Row>,
    /// Where pages end early.
    pub unreadable: Vec<Unreadable>,
}

/// What became of folding one page anew.
#[derive(Debug)]
pub(crate) enum Refolded {
    /// It is as the log has it.
    Released,
    /// It is as the log has it up to this event.
    StillQuarantined(Unreadable),
    /// The views have not come so far yet, or are not there: nothing was done.
    NotYet,
}

impl Folded {
    /// Folds histories, each up to the first event that cannot be read or whose fold panics.
    async fn of(log: &EventLog, views: &Views, read: Histories) -> anyhow::Result<Self> {
        let Histories { as_of, events, mut unreadable } = read;
        let is_discarded = |position| log.is_discarded(position);
        let folds = fold_histories_caught(views.fold(), events, is_discarded).await?;
        // A page whose fold panics ends there, whatever stands behind it.
        let panicked = folds.ended.into_iter().map(unreadable_by_panic);
        for end in panicked {
            unreadable.retain(|behind| behind.stream_id != end.stream_id);
            unreadable.push(end);
        }
        Ok(Self { as_of, rows: folds.rows, unreadable })
    }
}

fn unreadable_by_panic(end: FoldEnd) -> Unreadable {
    let FoldEnd { post_id, position, reason } = end;
    Unreadable { stream_id: post_id.to_string(), position, reason }
}

impl Projection {
    /// Folds whole pages, each up to the first event that cannot be read; a part at a time if they are long.
    pub(crate) async fn fold_from_log(&self, ids: &[PostId]) -> anyhow::Result<Folded> {
        let (mut all, mut done) = self.fold_first_from_log(ids).await?;
        while done < ids.len() {
            progress::tick();
            let (more, count) = self.fold_first_from_log(&ids[done..]).await?;
            done += count;
            all.as_of = all.as_of.min(more.as_of);
            all.rows.extend(more.rows);
            all.unreadable.extend(more.unreadable);
        }
        Ok(all)
    }

    /// Folds the first of these pages, as many as are not too long together. Tells how many.
    pub(crate) async fn fold_first_from_log(
        &self,
        ids: &[PostId],
    ) -> anyhow::Result<(Folded, usize)> {
        let (read, count) = self.log.first_histories(ids).await?;
        Ok((Folded::of(&self.log, &self.views, read).await?, count))
    }
}

/// Folds a page anew that was set aside by events on record up to `noted`. If all of it can be read now, or
/// what was not is discarded, it is released and taken off the record, in this order.
pub(crate) async fn refold(
    log: &EventLog,
    views: &Views,
    id: PostId,
    noted: Position,
) -> anyhow::Result<Refolded> {
    for _ in 0..ATTEMPTS {
        let found = views.row(id).await.context("asking for the watermark")?;
        let Some(watermark) = found.watermark.filter(|mark| mark.is_of_this_version()) else {
            return Ok(Refolded::NotYet);
        };
        // Whoever has yet to bring the event into the views may be about to set the page aside.
        if watermark.point.position < noted {
            return Ok(Refolded::NotYet);
        }
        let mut folded = Folded::of(log, views, log.histories(&[id]).await?).await?;
        let end = folded.unreadable.pop();
        log.quarantine(&end).await?;
        let flag = match &end {
            Some(end) => Flag::Quarantined(end.position),
            None => Flag::Released,
        };
        let fill = Fill {
            partition: views.partition_of(id),
            incarnation: watermark.incarnation,
            epoch: watermark.epoch,
            as_of: folded.as_of,
            rows: folded.rows.into_iter().collect(),
            unfilled_below: None,
            flags: vec![(id, flag)],
        };
        // Refused, the watermark has moved on or the views were lost: both are seen above.
        if views.fill(&fill).await.context("writing the page")? == Guarded::Written {
            let readable = end.as_ref().map_or(Position(noted.0 + 1), |end| end.position);
            log.release(&id.to_string(), readable).await?;
            return Ok(match end {
                Some(end) => Refolded::StillQuarantined(end),
                None => Refolded::Released,
            });
        }
    }
    bail!("events of its partition came faster than the page could be folded; try again")
}

//! Pages that seem wrong, looked at again, the other way round: first in Redis, then in the log as of where Redis stood.

use std::time::Duration;

use anyhow::Context;
use domain::{Position, PostId};
use event_log::IdRange;
use read_model::Row;
use service_runtime::progress;

use super::{Found, Report, Verifier, is_usable};
use crate::rebuild::Pages;

/// How long the views have for what an operator has just said of a page.
const RELEASED: Duration = Duration::from_secs(2);

/// A page as the log has it.
pub(super) enum Folded {
    Row(Box<Row>),
    /// One of its events cannot be read or folded.
    Unreadable,
    /// It has no event.
    Unknown,
}

impl Verifier {
    /// Looks at pages first and then folds them, each as of where it stood when it was looked at. So nothing
    /// that happens meanwhile makes a difference.
    pub(super) async fn look_closely(
        &self,
        suspects: &[PostId],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        if suspects.is_empty() {
            return Ok(());
        }
        let inspected = self.views.inspect(suspects).await.context("reading views")?;
        let head = self.log.head().await?;
        let mut for_nothing = vec![];
        for (id, seen) in suspects.iter().zip(inspected) {
            progress::tick();
            let Some(mark) = seen.watermark.as_ref().filter(|mark| is_usable(mark)) else {
                self.lost(self.views.partition_of(*id), seen.watermark.as_ref(), report)?;
                continue;
            };
            let row = match (self.page(*id, seen.as_of()).await?, seen.quarantined) {
                (Folded::Row(row), None) => row,
                (Folded::Row(_), Some(event)) if event <= seen.as_of() => {
                    for_nothing.push((*id, event));
                    continue;
                }
                (Folded::Row(_) | Folded::Unreadable, _) => {
                    report.quarantined += 1;
                    continue;
                }
                (Folded::Unknown, _) => continue,
            };
            self.note_filling(*id, &row, &seen, report);
            let differences = self.views.differences(*id, &row, &seen).await?;
            if differences.is_empty() {
                continue;
            }
            let (views, log) = (mark.point.position, seen.as_of().min(head));
            for difference in differences {
                self.found(Found { difference, post_id: Some(*id), views, log }, report)?;
            }
            self.note_wrong(*id, report).await?;
        }
        self.set_aside_for_nothing(for_nothing, report).await
    }

    /// Pages that are set aside, each for an event, though the log can be folded. Those that are so on record wait for an
    /// operator. What is on record changes before the views are told, so they have a moment.
    async fn set_aside_for_nothing(
        &self,
        mut suspects: Vec<(PostId, Position)>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        if suspects.is_empty() {
            return Ok(());
        }
        let events: Vec<Position> = suspects.iter().map(|(_, event)| *event).collect();
        let on_record = self.log.quarantined_among(&events).await?;
        suspects.retain(|(_, event)| !on_record.contains(event));
        report.quarantined += (events.len() - suspects.len()) as u64;
        if suspects.is_empty() {
            return Ok(());
        }
        progress::idle(tokio::time::sleep(RELEASED)).await;
        let ids: Vec<PostId> = suspects.iter().map(|(id, _)| *id).collect();
        let inspected = self.views.inspect(&ids).await.context("reading views")?;
        for ((id, event), seen) in suspects.into_iter().zip(inspected) {
            if seen.quarantined != Some(event) {
                // Released meanwhile, or set aside for another event.
                report.quarantined += u64::from(seen.quarantined.is_some());
                continue;
            }
            let difference = self.views.set_aside_for_nothing(id, event);
            let views = seen.watermark.map(|mark| mark.point.position).unwrap_or_default();
            self.found(Found { difference, post_id: Some(id), views, log: event }, report)?;
            self.note_wrong(id, report).await?;
        }
        Ok(())
    }

    /// Counts a page that differs, and mends it if that is wanted.
    async fn note_wrong(&self, id: PostId, report: &mut Report) -> anyhow::Result<()> {
        report.wrong += 1;
        if self.repair {
            report.note_repair(self.fold_anew(id).await?);
        }
        Ok(())
    }

    /// Folds one page from its events up to a position. They are never all in memory.
    pub(super) async fn page(&self, id: PostId, as_of: Position) -> anyhow::Result<Folded> {
        let up_to = id.to_string();
        // Ids are of one length: behind this one without its last character stand those that end otherwise, too.
        let above = up_to[..up_to.len() - 1].to_owned();
        let range = IdRange { above: Some(above), up_to: Some(up_to) };
        let mut pages = Pages::new(&self.log, self.views.fold(), &range, as_of);
        while let Some(page) = pages.next().await? {
            progress::tick();
            if page.id == id {
                let row = page.row.filter(|_| page.unreadable.is_none());
                return Ok(row.map_or(Folded::Unreadable, |row| Folded::Row(Box::new(row))));
            }
        }
        Ok(Folded::Unknown)
    }
}

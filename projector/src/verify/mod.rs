//! The views held against the log: rows and the lists they are in, field by field; and the lists for entries that
//! belong to no post.
//!
//! In front of live traffic most of what differs at a first look was only on its way. So what differs is looked at
//! again, the other way round: first in Redis, then in the log as of where Redis stood.

mod closely;
mod entries;
mod repair;
mod report;
mod standstill;
mod trickle;

use anyhow::Context;
use domain::{Position, PostId};
use event_log::{EventLog, IdRange};
use read_model::{Inspected, Row, Views, Watermark};
use service_runtime::progress;

pub use report::{Found, Report};
pub(crate) use trickle::Trickle;

use crate::rebuild::{Pace, Pages, Progress};

/// So many pages are compared at once, fewer if they are long.
const PAGES: usize = 50;
const BYTES: usize = 2 * 1024 * 1024;
/// So many are picked at random at once.
const SAMPLED: u32 = 1000;

/// Compares one generation with the log.
#[derive(Debug, Clone)]
pub struct Verifier {
    pub(crate) log: EventLog,
    pub(crate) views: Views,
    /// Whether what differs is folded anew.
    pub(crate) repair: bool,
    /// How much of the time is worked, in percent.
    pub(crate) share: u8,
    /// Who is told of each difference at once.
    pub(crate) tell: fn(&Found) -> anyhow::Result<()>,
}

impl Verifier {
    /// One that changes nothing, and speaks at the end only.
    pub fn new(log: EventLog, views: Views) -> Self {
        Self { log, views, repair: false, share: 50, tell: |_| Ok(()) }
    }

    /// Compares everything.
    pub async fn all(&self) -> anyhow::Result<Report> {
        let heads = self.log.heads().await?;
        let head = heads.iter().map(|head| head.position).max().unwrap_or_default();
        let mut report = Report::default();
        let progress = Progress::new("verification");
        let parts = u32::try_from((head.0 / 5_000).clamp(1, 50_000)).unwrap_or(1);
        let ranges = self.log.ranges(head, parts).await?;
        progress.expect(head.0, ranges.len());
        for range in &ranges {
            self.range(range, head, &mut report, &progress).await?;
        }
        progress.end();
        tracing::info!("All pages have been compared; what is in the lists comes next");
        self.entries(&mut report).await?;
        self.standstill(&heads, &mut report).await?;
        Ok(report)
    }

    /// Compares some pages, and how far the partitions have come.
    pub async fn some(&self, pages: u32) -> anyhow::Result<Report> {
        let heads = self.log.heads().await?;
        let mut report = self.sample(pages).await?;
        self.standstill(&heads, &mut report).await?;
        Ok(report)
    }

    /// Compares so many pages, picked at random among the events.
    pub async fn sample(&self, pages: u32) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let mut pace = Pace::new(self.share);
        let mut left = pages;
        while left > 0 {
            let some = left.min(SAMPLED);
            left -= some;
            let ids = progress::idle(self.log.random_pages(some)).await?;
            progress::tick();
            for ids in ids.chunks(PAGES) {
                report.pages += ids.len() as u64;
                self.look_closely(ids, &mut report).await?;
                pace.rest().await;
            }
        }
        Ok(report)
    }

    async fn range(
        &self,
        range: &IdRange,
        head: Position,
        report: &mut Report,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let mut pages = Pages::new(&self.log, self.views.fold(), range, head);
        let (mut rows, mut bytes, mut told) = (Vec::with_capacity(PAGES), 0, 0);
        let mut over = false;
        let mut pace = Pace::new(self.share);
        while !over {
            let page = pages.next().await?;
            over = page.is_none();
            if let Some(page) = page {
                report.pages += 1;
                bytes += page.weight();
                match page.row {
                    Some(row) if page.unreadable.is_none() => rows.push((page.id, row)),
                    Some(_) | None => report.quarantined += 1,
                }
            }
            if over || rows.len() == PAGES || bytes >= BYTES {
                let suspects = self.suspects(&rows, report).await?;
                rows.clear();
                bytes = 0;
                self.look_closely(&suspects, report).await?;
                progress.add(pages.events - told);
                told = pages.events;
                pace.rest().await;
            }
        }
        progress.part();
        Ok(())
    }

    /// Which of these are not, at a first look, what they should be.
    async fn suspects(
        &self,
        rows: &[(PostId, Row)],
        report: &mut Report,
    ) -> anyhow::Result<Vec<PostId>> {
        let ids: Vec<PostId> = rows.iter().map(|(id, _)| *id).collect();
        let inspected = self.views.inspect(&ids).await.context("reading views")?;
        let mut suspects = vec![];
        for ((id, row), inspected) in rows.iter().zip(&inspected) {
            if !inspected.watermark.as_ref().is_some_and(is_usable)
                || inspected.quarantined.is_some()
                || !self.views.differences(*id, row, inspected).await?.is_empty()
            {
                suspects.push(*id);
            } else {
                self.note_filling(*id, row, inspected, report);
            }
        }
        Ok(suspects)
    }

    fn note_filling(&self, id: PostId, row: &Row, seen: &Inspected, report: &mut Report) {
        if seen.is_yet_to_be_filled(row.position) {
            report.unfilled += 1;
            report.filling.insert(self.views.partition_of(id));
        }
    }
}

/// Whether a watermark vouches for views that this program can compare.
fn is_usable(mark: &Watermark) -> bool {
    mark.is_of_this_version()
}

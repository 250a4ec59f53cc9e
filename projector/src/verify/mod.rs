//! The views held against the log: rows and the lists they are in, field by field; and the lists for entries that
//! belong to no post.
//!
//! In front of live traffic most of what differs at a first look was only on its way. So what differs is looked at
//! again, the other way round: first in Redis, then in the log as of where Redis stood.

mod entries;
mod repair;
mod trickle;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use domain::post::PostEvent;
use domain::{Partition, Point, Position, PostId, Recorded};
use event_log::{EventLog, IdRange, Reading};
use read_model::{Difference, Inspected, Row, Views, Watermark, fold_histories};

pub(crate) use trickle::Trickle;

use crate::rebuild::{Pages, Progress};

/// So many pages are compared at once.
const PAGES: usize = 200;
/// How long the views have for what is on its way.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Compares one generation with the log.
#[derive(Debug, Clone)]
pub struct Verifier {
    log: EventLog,
    views: Views,
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct Report {
    pub pages: u64,
    /// Pages that are set aside: of these nothing can be said.
    pub quarantined: u64,
    /// Parts of lists, one for each partition.
    pub lists: u64,
    pub differences: Vec<Found>,
    pub repaired: u64,
    /// Pages that their partitions have not been filled with yet: of these only what is there was compared.
    pub unfilled: u64,
    /// The partitions of those.
    pub filling: BTreeSet<Partition>,
    /// Partitions of which nothing can be said, each of them a difference.
    lost: BTreeSet<Partition>,
}

/// A difference, and how far the two sides had come when it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub difference: Difference,
    /// The page that it is about.
    pub post_id: Option<PostId>,
    /// The watermark of its partition.
    pub views: Position,
    /// As of which position the page was folded.
    pub log: Position,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { key, field, found, expected } = &self.difference;
        let shown = |value: &Option<String>| match value {
            Some(value) if value.chars().count() > 200 => {
                format!("`{}…`", value.chars().take(200).collect::<String>())
            }
            Some(value) => format!("`{value}`"),
            None => "nothing".to_owned(),
        };
        write!(
            f,
            "{key} {field}: {} in Redis (at {}), {} by the log (at {})",
            shown(found),
            self.views,
            shown(expected),
            self.log
        )
    }
}

/// A page as the log has it.
struct Folded {
    as_of: Position,
    rows: HashMap<PostId, Row>,
    unreadable: BTreeSet<PostId>,
}

impl Verifier {
    pub fn new(log: EventLog, views: Views) -> Self {
        Self { log, views }
    }

    /// Compares everything, and folds anew what differs if that is wanted.
    pub async fn all(&self, repair: bool) -> anyhow::Result<Report> {
        let heads = self.log.heads().await?;
        let head = heads.iter().map(|head| head.position).max().unwrap_or_default();
        let mut report = Report::default();
        let progress = Progress::new("verification");
        let parts = u32::try_from((head.0 / 5_000).clamp(1, 50_000)).unwrap_or(1);
        let ranges = self.log.ranges(head, parts).await?;
        progress.expect(head.0, ranges.len());
        for range in &ranges {
            self.range(range, head, repair, &mut report, &progress).await?;
        }
        self.entries(repair, &mut report).await?;
        self.standstill(&heads, &mut report).await?;
        progress.end();
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
        let ids = self.log.random_pages(pages).await?;
        for ids in ids.chunks(PAGES) {
            report.pages += ids.len() as u64;
            self.look_closely(ids, false, &mut report).await?;
        }
        Ok(report)
    }

    async fn range(
        &self,
        range: &IdRange,
        head: Position,
        repair: bool,
        report: &mut Report,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let mut pages = Pages::new(&self.log, range, head);
        let (mut rows, mut told) = (Vec::with_capacity(PAGES), 0);
        let mut over = false;
        while !over {
            let page = pages.next().await?;
            over = page.is_none();
            if let Some(page) = page {
                report.pages += 1;
                match page.row {
                    Some(row) if page.unreadable.is_none() => rows.push((page.id, row)),
                    Some(_) | None => report.quarantined += 1,
                }
            }
            if over || rows.len() == PAGES {
                let suspects = self.suspects(&rows, report).await?;
                rows.clear();
                self.look_closely(&suspects, repair, report).await?;
                progress.add(pages.events - told);
                told = pages.events;
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
            if !is_usable(inspected.watermark.as_ref())
                || !self.views.differences(*id, row, inspected)?.is_empty()
            {
                suspects.push(*id);
            } else {
                self.note_filling(*id, row, inspected, report);
            }
        }
        Ok(suspects)
    }

    /// Looks at pages first and then folds them, each as of where it stood when it was looked at. So nothing
    /// that happens meanwhile makes a difference.
    async fn look_closely(
        &self,
        suspects: &[PostId],
        repair: bool,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        if suspects.is_empty() {
            return Ok(());
        }
        let inspected = self.views.inspect(suspects).await.context("reading views")?;
        let inspected: HashMap<PostId, Inspected> =
            suspects.iter().copied().zip(inspected).collect();
        for (id, seen) in &inspected {
            if !is_usable(seen.watermark.as_ref()) {
                report.lost(self.views.partition_of(*id), seen.watermark.as_ref());
            }
        }
        let as_of = |id: &PostId| inspected.get(id).map(Inspected::as_of).unwrap_or_default();
        let folded = self.fold(suspects, as_of).await?;
        let mut wrong = vec![];
        for (id, row) in &folded.rows {
            let Some(seen) = inspected.get(id) else { continue };
            if !is_usable(seen.watermark.as_ref()) {
                continue;
            }
            if seen.quarantined.is_some() || folded.unreadable.contains(id) {
                report.quarantined += 1;
                continue;
            }
            self.note_filling(*id, row, seen, report);
            let differences = self.views.differences(*id, row, seen)?;
            if !differences.is_empty() {
                wrong.push(*id);
            }
            let mark = seen.watermark.as_ref().map(|mark| mark.point.position);
            let (views, log) = (mark.unwrap_or_default(), as_of(id).min(folded.as_of));
            let found = |difference| Found { difference, post_id: Some(*id), views, log };
            report.differences.extend(differences.into_iter().map(found));
        }
        if repair {
            report.repaired += self.repair(&wrong).await?;
        }
        Ok(())
    }

    fn note_filling(&self, id: PostId, row: &Row, seen: &Inspected, report: &mut Report) {
        if seen.is_yet_to_be_filled(row.position) {
            report.unfilled += 1;
            report.filling.insert(self.views.partition_of(id));
        }
    }

    /// Folds pages, each from its events up to a position of its own.
    async fn fold(
        &self,
        ids: &[PostId],
        as_of: impl Fn(&PostId) -> Position,
    ) -> anyhow::Result<Folded> {
        let mut pages = self.log.pages(ids).await?;
        pages.events.retain(|event| {
            event.stream_id.parse().is_ok_and(|id: PostId| event.position <= as_of(&id))
        });
        let mut unreadable = BTreeSet::new();
        let mut events: Vec<Recorded<Option<PostEvent>>> = Vec::with_capacity(pages.events.len());
        for event in self.log.read(pages.events).await? {
            let id = event.stream_id.parse::<PostId>();
            let read = event.try_map(|reading| match reading {
                Reading::Event(event) => Ok(Some(event)),
                Reading::Discarded => Ok(None),
                Reading::Unreadable(error) => Err(error),
            });
            match read {
                Ok(event) => events.push(event),
                Err(_) => unreadable.extend(id),
            }
        }
        Ok(Folded { as_of: pages.as_of, rows: fold_histories(events), unreadable })
    }

    /// Whether every partition comes, in a while, to where the log was at the beginning.
    async fn standstill(&self, heads: &[Point], report: &mut Report) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let incarnation = self.log.incarnation().await?;
            let marks = self.views.watermarks().await.context("reading the watermarks")?;
            let (mut behind, mut lost) = (vec![], vec![]);
            for ((partition, mark), head) in self.log.partitions().all().zip(marks).zip(heads) {
                let of_this_life = |mark: &&Watermark| mark.incarnation == incarnation;
                let Some(at) =
                    mark.as_ref().filter(of_this_life).filter(|mark| is_usable(Some(mark)))
                else {
                    // Where that has been noted, nothing is to be waited for.
                    if !report.lost.contains(&partition) {
                        lost.push((partition, mark));
                    }
                    continue;
                };
                let at = at.point.position;
                if at < head.position {
                    let difference = Difference {
                        key: format!("partition {partition}"),
                        field: "watermark".to_owned(),
                        found: Some(at.to_string()),
                        expected: Some(head.position.to_string()),
                    };
                    let log = head.position;
                    behind.push(Found { difference, post_id: None, views: at, log });
                }
            }
            if (behind.is_empty() && lost.is_empty()) || Instant::now() > deadline {
                report.differences.extend(behind);
                for (partition, mark) in lost {
                    report.lost(partition, mark.as_ref());
                }
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

impl Report {
    /// Whether nothing differs, though something could be compared.
    pub fn is_good(&self) -> bool {
        let nothing_was_there = self.unfilled > 0 && self.unfilled + self.quarantined >= self.pages;
        self.differences.is_empty() && !nothing_was_there
    }

    /// Notes, once, that a partition's watermark vouches for nothing.
    fn lost(&mut self, partition: Partition, mark: Option<&Watermark>) {
        if !self.lost.insert(partition) {
            return;
        }
        let difference = Difference {
            key: format!("partition {partition}"),
            field: "watermark".to_owned(),
            found: mark.map(|mark| format!("{} of incarnation {}", mark.epoch, mark.incarnation)),
            expected: Some("one of this version and this life of the log".to_owned()),
        };
        let views = mark.map(|mark| mark.point.position).unwrap_or_default();
        self.differences.push(Found { difference, post_id: None, views, log: views });
    }
}

/// Whether a watermark vouches for views that this program can compare.
fn is_usable(mark: Option<&Watermark>) -> bool {
    mark.is_some_and(Watermark::is_of_this_version)
}

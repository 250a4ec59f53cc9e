//! The first part of a rebuild: every page of the log, folded as of one position, into a key space that nobody
//! else writes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, ensure};
use domain::{Partition, Position};
use event_log::{Generation, GenerationState, IdRange, Unreadable};
use read_model::{Fill, Flag, Guarded, NewEpoch, Part, Views, Watermark};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::pace::Pace;
use super::page::{Page, Pages};
use super::{AFTER_AN_ERROR, Progress, Rebuild};

/// No log is divided into more parts, so that their notes stay small.
const MAX_PARTS: u64 = 50_000;
/// What is sent to Redis at once, where the pages are long.
const MAX_BYTES: usize = 2 * 1024 * 1024;

/// Into how many parts the log up to a position is divided.
pub(super) fn parts(head: Position, part_events: u32) -> u32 {
    let parts = (head.0 / u64::from(part_events)).clamp(1, MAX_PARTS);
    u32::try_from(parts).unwrap_or(1)
}

/// One go at what is missing, by several lanes.
struct Attempt {
    views: Views,
    head: Position,
    marks: Vec<Watermark>,
    ranges: Arc<Vec<IdRange>>,
    pending: Vec<usize>,
    next: AtomicUsize,
    /// Redis has forgotten something that it had confirmed.
    lost: AtomicBool,
    progress: Arc<Progress>,
}

impl Rebuild {
    /// Writes all parts that are not written yet, and returns where the partitions stand then.
    pub(super) async fn build(
        &self,
        generation: &Generation,
        views: &Views,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<Vec<Watermark>> {
        let head = generation.head;
        let ranges = Arc::new(self.log.ranges(head, generation.parts).await?);
        progress.expect(head.0, ranges.len());
        loop {
            self.is_of_this_life(generation).await?;
            let marks = self.begin_epochs(generation, views).await?;
            let built = views.built(&marks, ranges.len()).await?;
            let pending: Vec<usize> = built
                .iter()
                .enumerate()
                .filter(|(_, built)| !*built)
                .map(|(part, _)| part)
                .collect();
            if pending.is_empty()
                && views.end_build(&marks, ranges.len()).await.context("ending the build")?
            {
                return Ok(marks);
            }
            progress.stands_at(ranges.len() - pending.len());
            let attempt = Arc::new(Attempt {
                views: views.clone(),
                head,
                marks,
                ranges: Arc::clone(&ranges),
                pending,
                next: AtomicUsize::new(0),
                lost: AtomicBool::new(false),
                progress: Arc::clone(progress),
            });
            // Tasks, since folding keeps a processor busy. They end with us.
            let mut lanes = JoinSet::new();
            for _ in 0..self.args.lanes {
                let (rebuild, attempt) = (self.clone(), Arc::clone(&attempt));
                lanes.spawn(async move { rebuild.lane(&attempt).await });
            }
            while let Some(lane) = lanes.join_next().await {
                lane.context("a lane of the rebuild ended badly")?;
            }
            // With nothing pending, it was lost when it was to be closed.
            if attempt.lost.load(Ordering::Relaxed) || attempt.pending.is_empty() {
                let number = generation.number;
                tracing::warn!(
                    "Redis has lost a part of generation {number}, which is written again"
                );
                tokio::time::sleep(AFTER_AN_ERROR).await;
            }
        }
    }

    /// Gives a watermark to every partition that has none, as of the head of the build.
    async fn begin_epochs(
        &self,
        generation: &Generation,
        views: &Views,
    ) -> anyhow::Result<Vec<Watermark>> {
        loop {
            let found = views.watermarks().await.context("reading the watermarks")?;
            let usable = |mark: &&Watermark| {
                mark.incarnation == generation.incarnation && mark.is_of_this_version()
            };
            if found.iter().all(|mark| mark.as_ref().filter(usable).is_some()) {
                return Ok(found.into_iter().flatten().collect());
            }
            let points = self.log.points_at(generation.head).await?;
            // We may have slept while it was given up, and removed: a watermark would lie in Redis for ever.
            let state = self.generation(generation.number).await?.state;
            ensure!(state == GenerationState::Building, "it was given up");
            for ((partition, mark), point) in self.log.partitions().all().zip(found).zip(points) {
                if mark.as_ref().filter(usable).is_some() {
                    continue;
                }
                let new = NewEpoch {
                    partition,
                    incarnation: generation.incarnation,
                    epoch: Watermark::new_epoch(Uuid::new_v4()),
                    head: point,
                    found: mark,
                };
                // If it is refused, it is looked at again, a little later.
                let begun = views.begin_epoch(&new).await.context("beginning a partition")?;
                if begun != Guarded::Written {
                    tokio::time::sleep(AFTER_AN_ERROR).await;
                }
            }
        }
    }

    /// Takes one part after another until none is left.
    async fn lane(&self, attempt: &Attempt) {
        let mut pace = Pace::new(self.args.share);
        while !attempt.lost.load(Ordering::Relaxed)
            && let Some(part) = attempt.pending.get(attempt.next.fetch_add(1, Ordering::Relaxed))
        {
            while let Err(error) = self.part(attempt, *part, &mut pace).await {
                tracing::warn!("Part {part} of the rebuild waits: {error:#}");
                tokio::time::sleep(AFTER_AN_ERROR).await;
                // To wait for servers is no work of theirs.
                pace.begin();
            }
        }
    }

    async fn part(&self, attempt: &Attempt, part: usize, pace: &mut Pace) -> anyhow::Result<()> {
        let Some(range) = attempt.ranges.get(part) else { return Ok(()) };
        let mut pages = Pages::new(&self.log, attempt.views.fold(), range, attempt.head);
        let batch_pages = usize::try_from(self.args.batch_pages)?;
        let (mut batch, mut bytes, mut told) = (Vec::new(), 0, 0);
        let mut part = attempt.views.begin_part(part, Uuid::new_v4());
        loop {
            let page = pages.next().await?;
            let over = page.is_none();
            if let Some(page) = page {
                bytes += page.weight();
                batch.push(page);
            }
            if over || batch.len() >= batch_pages || bytes >= MAX_BYTES {
                let batch = std::mem::take(&mut batch);
                if !self.write(attempt, &mut part, batch).await? {
                    attempt.lost.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                bytes = 0;
                attempt.progress.add(pages.events - told);
                told = pages.events;
                if over {
                    break;
                }
                pace.rest().await;
            }
        }
        let noted = attempt.views.mark_built(&attempt.marks, &part).await;
        if !noted.context("noting a part")? {
            attempt.lost.store(true, Ordering::Relaxed);
            return Ok(());
        }
        attempt.progress.part();
        pace.rest().await;
        Ok(())
    }

    /// Writes pages of a part. `false`: a partition is not what it was when we began, or has not got what was written
    /// before.
    async fn write(
        &self,
        attempt: &Attempt,
        part: &mut Part,
        pages: Vec<Page>,
    ) -> anyhow::Result<bool> {
        // Nothing is set aside that is not on record.
        self.log.quarantine(pages.iter().filter_map(|page| page.unreadable.as_ref())).await?;
        let mut fills: HashMap<Partition, Fill> = HashMap::new();
        for page in pages {
            let partition = attempt.views.partition_of(page.id);
            let Some(mark) = attempt.marks.get(usize::from(partition.0)) else { continue };
            // Once it has followed, it was whole.
            if mark.point.position > attempt.head {
                continue;
            }
            let fill =
                fills.entry(partition).or_insert_with(|| fill(partition, mark, attempt.head));
            if let Some(Unreadable { position, reason, .. }) = &page.unreadable {
                let id = page.id;
                tracing::error!(
                    post.id = %id, %position,
                    "Post {id} is set aside from position {position} on: {reason}"
                );
                fill.flags.push((id, Flag::Quarantined(*position)));
            }
            fill.rows.extend(page.row.map(|row| (page.id, row)));
        }
        let fills: Vec<Fill> = fills.into_values().collect();
        let answers = attempt.views.fill_batch(part, &fills).await.context("writing pages")?;
        Ok(answers.iter().all(|answer| *answer == Guarded::Written))
    }
}

fn fill(partition: Partition, mark: &Watermark, as_of: Position) -> Fill {
    Fill {
        partition,
        incarnation: mark.incarnation,
        epoch: mark.epoch.clone(),
        as_of,
        rows: vec![],
        unfilled_below: None,
        flags: vec![],
    }
}

//! What is done when views were lost, fell behind, or belong to another log.
//!
//! Once a second each partition's watermark is compared with the head of its log, so that nothing depends
//! on Kafka bringing an event, or on there being one.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use domain::{Partition, Point, Position, PostId};
use event_log::{Touched, Unreadable};
use read_model::{Fill, Flag, Guarded, NewEpoch, Watermark};
use service_runtime::progress;
use uuid::Uuid;

use crate::apply::Projection;
use crate::metrics;

/// How many events of the log one step of filling looks at.
const CHUNK: u32 = 50;
/// How often rows that became too old while they were folded are folded again.
const ATTEMPTS: usize = 5;
/// How many times as long a partition may stand still while Kafka brings more of others than we take.
const MAX_TURNS: u32 = 15;

/// Where the log stood a moment ago.
#[derive(Debug, Clone, Default)]
pub struct Heads {
    pub incarnation: u32,
    /// The last event of every partition.
    pub points: Vec<Point>,
    /// The generations of our version that are kept up to date, the active one first.
    pub generations: Vec<u32>,
}

/// Since when each partition has stood where it stands, below its head; and where Kafka is silent, so that
/// the log is followed until it is heard of again.
#[derive(Debug, Default)]
pub struct Standstill {
    since: HashMap<Partition, (Position, Instant)>,
    silent: BTreeSet<Partition>,
    /// When Kafka last had more for us than we took.
    flood: Option<Instant>,
}

impl Standstill {
    /// How many partitions are followed in the log.
    fn tailed(&self) -> usize {
        self.silent.len()
    }

    /// Whether a partition has not moved for so long, or not by Kafka since it last had not.
    fn lasts(&mut self, partition: Partition, at: Position, limit: Duration) -> bool {
        match self.since.get(&partition) {
            Some((position, since)) if *position == at => {
                let stands = since.elapsed();
                // While Kafka brings more than we take, a partition merely waits for its turn. For ever it
                // does not.
                let quiet = self.flood.map_or(stands, |flood| flood.elapsed().min(stands));
                let lasts = quiet >= limit || stands >= limit * MAX_TURNS;
                if lasts && self.silent.insert(partition) {
                    tracing::warn!(partition = %partition, "Kafka is silent, following the log of partition {partition}");
                }
            }
            _ => {
                self.since.insert(partition, (at, Instant::now()));
            }
        }
        self.silent.contains(&partition)
    }

    /// Kafka has more for us than we have taken.
    pub fn more_waits(&mut self) {
        self.flood = Some(Instant::now());
    }

    /// Kafka has brought something for a partition.
    pub fn heard_of(&mut self, partition: Partition) {
        self.silent.remove(&partition);
    }
}

impl Projection {
    /// Compares watermarks with the heads of the log, which were read before: a partition that was lost or
    /// made from another log is begun anew, and one that has stood still below its head for `patience` is
    /// caught up from the log.
    pub async fn compare(
        &mut self,
        heads: &Heads,
        standstill: &mut Standstill,
        patience: Duration,
    ) -> anyhow::Result<()> {
        // Nowhere else does one come back, so that nobody forgets what it lacks.
        let away = std::mem::take(&mut self.away);
        if let Err(error) = self.look_up_watermarks().await {
            self.away = away;
            return Err(error);
        }
        let mut outcome = Ok(());
        for (partition, head) in self.log.partitions().all().zip(&heads.points) {
            progress::tick();
            let watermark = self.watermarks.get(&partition).cloned();
            let unfilled = watermark.as_ref().and_then(|mark| mark.unfilled_below);
            self.gauge(metrics::HEAD, partition, head.position);
            self.gauge(metrics::UNFILLED, partition, unfilled.unwrap_or_default());
            if self.away.contains(&partition) {
                continue;
            }
            let (place, is_back) = ((partition, *head), away.contains(&partition));
            let compared =
                self.compare_one(place, heads.incarnation, is_back, standstill, patience).await;
            // What is wrong with one keeps no other behind.
            outcome = outcome.and(compared);
        }
        if self.is_measured {
            ::metrics::gauge!(metrics::TAILED).set(standstill.tailed() as f64);
        }
        outcome
    }

    async fn compare_one(
        &mut self,
        (partition, head): (Partition, Point),
        incarnation: u32,
        is_back: bool,
        standstill: &mut Standstill,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let halted = self.halted.contains(partition);
        let Some(watermark) = self.watermarks.get(&partition).cloned() else {
            return if halted { Ok(()) } else { self.begin_epoch(partition).await };
        };
        let at = watermark.point;
        let another_life = watermark.incarnation != incarnation;
        // What halted a partition in one life of the store, or of the views, says nothing of the next.
        let another_version = !watermark.is_of_this_version();
        if halted && !another_life && !another_version {
            return Ok(());
        }
        let behind = at.position < head.position;
        let stands = behind && standstill.lasts(partition, at.position, patience);
        // What Kafka brought while its views were away was let go.
        let silent = stands || (behind && is_back);
        let odd = another_life || (!behind && at != head);
        if another_version {
            tracing::info!(partition = %partition, "The views of partition {partition} are of another version");
            self.halted.release(partition);
            return self.begin_epoch(partition).await;
        }
        if (silent || odd) && self.is_of_another_log(partition, &watermark).await? {
            tracing::error!(partition = %partition, "The views of partition {partition} are not of this log, or of an earlier life of it");
            self.halted.release(partition);
            return self.begin_epoch(partition).await;
        }
        if !silent {
            return Ok(());
        }
        if self.lacks_too_much(partition, &watermark, head.position).await? {
            return self.begin_epoch(partition).await;
        }
        self.catch_up(partition, head.position).await
    }

    /// Begins a new epoch of a partition at its head. What it held counts as absent from then on, and is
    /// filled again step by step.
    pub(crate) async fn begin_epoch(&mut self, partition: Partition) -> anyhow::Result<()> {
        // In this order: heads of a later life than the watermark tells are noticed, those of an earlier one
        // might not be.
        let incarnation = self.log.incarnation().await?;
        let heads = self.log.heads().await?;
        progress::tick();
        let new = NewEpoch {
            partition,
            incarnation,
            epoch: Watermark::new_epoch(Uuid::new_v4()),
            head: *heads
                .get(usize::from(partition.0))
                .context("a partition that the store has not")?,
            found: self.watermarks.remove(&partition),
        };
        // We may have slept while it was given up, and removed: a watermark would lie in Redis for ever.
        let number = self.views.generation();
        let generation = self.log.generations().find(number).await?;
        let is_followed = generation.is_some_and(|generation| generation.state.is_followed());
        ensure!(is_followed, "generation {number} is followed no more");
        progress::tick();
        let begun = match self.views.begin_epoch(&new).await {
            Ok(begun) => begun,
            Err(error) => return self.leave_out(vec![(partition, error)]).await,
        };
        match begun {
            Guarded::Written => {
                let position = new.head.position;
                tracing::info!(partition = %partition, "Began a new epoch of partition {partition} at {position}");
                ::metrics::counter!(metrics::EPOCHS).increment(1);
            }
            Guarded::Refused(found) => {
                tracing::debug!(?found, "Another process was first with partition {partition}");
            }
        }
        self.look_up_watermarks().await
    }

    /// The partitions that are not filled yet, and below which position.
    pub fn unfilled(&self) -> impl Iterator<Item = (Partition, Position)> {
        let unfilled =
            |(partition, mark): (&Partition, &Watermark)| Some((*partition, mark.unfilled_below?));
        self.watermarks.iter().filter_map(unfilled).filter(|(partition, _)| {
            !self.halted.contains(*partition) && !self.away.contains(partition)
        })
    }

    /// Fills a part of what is missing from a partition, newest first.
    pub async fn fill(&mut self, partition: Partition, below: Position) -> anyhow::Result<()> {
        let touched = self.log.touched_before(partition, below, CHUNK).await?;
        let ids = latest_first(&touched);
        for _ in 0..ATTEMPTS {
            progress::tick();
            let Some(watermark) = self.watermarks.get(&partition).cloned() else { return Ok(()) };
            let (folded, count) = self.fold_first_from_log(&ids).await?;
            let lowest = covered(&touched, &ids[..count]);
            let discarded = self.quarantine(folded.unreadable.iter()).await?;
            if !discarded.is_empty() {
                // Just now: the pages are folded again without.
                continue;
            }
            // An event that the watermark has not reached is yet to be applied, and sets its page aside then.
            let reached = |page: &&Unreadable| page.position <= watermark.point.position;
            let set_aside = folded.unreadable.iter().filter(reached).filter_map(|page| {
                Some((page.stream_id.parse().ok()?, Flag::Quarantined(page.position)))
            });
            let fill = Fill {
                partition,
                incarnation: watermark.incarnation,
                epoch: watermark.epoch.clone(),
                as_of: folded.as_of,
                flags: set_aside.collect(),
                // What was touched again above has been filled already, or is being applied.
                rows: folded.rows.into_iter().filter(|(_, row)| row.position < below).collect(),
                unfilled_below: Some(lowest),
            };
            progress::tick();
            let filled = match self.views.fill_part(&fill, below).await {
                Ok(filled) => filled,
                Err(error) => return self.leave_out(vec![(partition, error)]).await,
            };
            match filled {
                Guarded::Written => {
                    self.note_filled(partition, lowest);
                    return Ok(());
                }
                // Somebody applied an event that these rows lack: they are folded again.
                Guarded::Refused(Some(found))
                    if found.epoch == watermark.epoch && found.unfilled_below == Some(below) => {}
                Guarded::Refused(_) => return self.look_up_watermarks().await,
            }
        }
        Ok(())
    }

    pub(crate) fn gauge(&self, name: &'static str, partition: Partition, position: Position) {
        if self.is_measured {
            ::metrics::gauge!(name, "partition" => partition.to_string()).set(position.0 as f64);
        }
    }

    fn note_filled(&mut self, partition: Partition, lowest: Position) {
        self.gauge(metrics::UNFILLED, partition, lowest);
        if let Some(watermark) = self.watermarks.get_mut(&partition) {
            watermark.unfilled_below = (lowest != Position::ZERO).then_some(lowest);
            if lowest == Position::ZERO {
                tracing::info!(partition = %partition, "Partition {partition} is filled");
            }
        }
    }

    /// Whether the log, asked after the watermark was read, is in another life, or has another event or none
    /// where it stands.
    pub(crate) async fn is_of_another_log(
        &self,
        partition: Partition,
        watermark: &Watermark,
    ) -> anyhow::Result<bool> {
        if self.log.incarnation().await? != watermark.incarnation {
            return Ok(true);
        }
        let there = self.log.points_at(watermark.point.position).await?;
        Ok(there.get(usize::from(partition.0)) != Some(&watermark.point))
    }
}

/// Every page once, the one that was touched last first.
fn latest_first(touched: &[Touched]) -> Vec<PostId> {
    let mut seen = BTreeSet::new();
    let ids = touched.iter().filter_map(|touched| touched.stream_id.parse().ok());
    ids.filter(|id| seen.insert(*id)).collect()
}

/// The position of the last of these events, latest first, such that it and those before it are all in these
/// pages; zero if that was all.
fn covered(touched: &[Touched], pages: &[PostId]) -> Position {
    let is_in = |touched: &&Touched| {
        touched.stream_id.parse::<PostId>().map_or(true, |id| pages.contains(&id))
    };
    let covered = touched.iter().take_while(is_in).count();
    touched[..covered].last().map_or(Position::ZERO, |touched| touched.position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_waits_for_its_turn_is_not_silent_unless_for_very_long() {
        let limit = Duration::from_secs(2);
        let stood_for = |seconds, flood| {
            let now = Instant::now();
            let since = now.checked_sub(Duration::from_secs(seconds)).unwrap();
            let since = HashMap::from([(Partition(0), (Position(7), since))]);
            let mut standstill = Standstill { since, flood, ..Standstill::default() };
            standstill.lasts(Partition(0), Position(7), limit)
        };
        let now = Instant::now();
        assert!(stood_for(3, None));
        assert!(!stood_for(1, None));
        assert!(!stood_for(3, Some(now)), "Kafka is busy");
        assert!(stood_for(3, now.checked_sub(limit)), "Kafka was busy");
        assert!(stood_for(31, Some(now)), "it never gets its turn");
    }
}

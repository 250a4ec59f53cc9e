//! What is done when views were lost, fell behind, or belong to another log.
//!
//! Once a second each partition's watermark is compared with the head of its log, so that nothing depends
//! on Kafka bringing an event, or on there being one.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context;
use domain::{Partition, Point, Position, PostId};
use read_model::{Fill, Guarded, NewEpoch, Watermark};
use uuid::Uuid;

use crate::apply::Projection;

/// How many events of the log one step of filling looks at.
const CHUNK: u32 = 50;
/// How often rows that became too old while they were folded are folded again.
const ATTEMPTS: usize = 5;

/// Where the log stood a moment ago.
#[derive(Debug, Clone, Default)]
pub struct Heads {
    pub incarnation: u32,
    /// The last event of every partition.
    pub points: Vec<Point>,
}

/// Since when each partition has stood where it stands, below its head; and where Kafka is silent, so that
/// the log is followed until it is heard of again.
#[derive(Debug, Default)]
pub struct Standstill {
    since: HashMap<Partition, (Position, Instant)>,
    silent: BTreeSet<Partition>,
}

impl Standstill {
    /// Whether a partition has not moved for so long, or not by Kafka since it last had not.
    fn lasts(&mut self, partition: Partition, at: Position, limit: Duration) -> bool {
        match self.since.get(&partition) {
            Some((position, since)) if *position == at => {
                if since.elapsed() >= limit && self.silent.insert(partition) {
                    tracing::warn!(partition = %partition, "Kafka is silent, following the log of partition {partition}");
                }
            }
            _ => {
                self.since.insert(partition, (at, Instant::now()));
            }
        }
        self.silent.contains(&partition)
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
        self.look_up_watermarks().await?;
        for (partition, head) in self.log.partitions().all().zip(&heads.points) {
            metrics::gauge!("projector_head", "partition" => partition.to_string())
                .set(head.position.0 as f64);
            let halted = self.halted.contains(partition);
            let Some(watermark) = self.watermarks.get(&partition).cloned() else {
                if !halted {
                    self.begin_epoch(partition).await?;
                }
                continue;
            };
            let at = watermark.point;
            let another_life = watermark.incarnation != heads.incarnation;
            // What halted a partition in one life of the store, or of the views, says nothing of the next.
            let another_version = !watermark.is_of_this_version();
            if halted && !another_life && !another_version {
                continue;
            }
            let behind = at.position < head.position;
            let silent = behind && standstill.lasts(partition, at.position, patience);
            let odd = another_life || (!behind && at != *head);
            if another_version {
                tracing::info!(partition = %partition, "The views of partition {partition} are of another version");
                self.halted.release(partition);
                self.begin_epoch(partition).await?;
            } else if (silent || odd) && self.is_of_another_log(partition, &watermark).await? {
                tracing::error!(partition = %partition, "The views of partition {partition} are not of this log, or of an earlier life of it");
                self.halted.release(partition);
                self.begin_epoch(partition).await?;
            } else if silent {
                if self.lacks_too_much(partition, &watermark, head.position).await? {
                    self.begin_epoch(partition).await?;
                } else {
                    self.catch_up(partition, head.position).await?;
                }
            }
        }
        Ok(())
    }

    /// Begins a new epoch of a partition at its head. What it held counts as absent from then on, and is
    /// filled again step by step.
    pub(crate) async fn begin_epoch(&mut self, partition: Partition) -> anyhow::Result<()> {
        // In this order: heads of a later life than the watermark tells are noticed, those of an earlier one
        // might not be.
        let incarnation = self.log.incarnation().await?;
        let heads = self.log.heads().await?;
        let new = NewEpoch {
            partition,
            incarnation,
            epoch: Watermark::new_epoch(Uuid::new_v4()),
            head: *heads
                .get(usize::from(partition.0))
                .context("a partition that the store has not")?,
            found: self.watermarks.remove(&partition),
        };
        match self.views.begin_epoch(&new).await.context("beginning a new epoch")? {
            Guarded::Written => {
                let position = new.head.position;
                tracing::info!(partition = %partition, "Began a new epoch of partition {partition} at {position}");
                metrics::counter!("projector_epochs_total").increment(1);
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
        self.watermarks
            .iter()
            .filter_map(unfilled)
            .filter(|(partition, _)| !self.halted.contains(*partition))
    }

    /// Fills a part of what is missing from a partition, newest first.
    pub async fn fill(&mut self, partition: Partition, below: Position) -> anyhow::Result<()> {
        let touched = self.log.touched_before(partition, below, CHUNK).await?;
        let lowest = touched.last().map_or(Position::ZERO, |touched| touched.position);
        let ids: BTreeSet<PostId> =
            touched.iter().filter_map(|touched| touched.stream_id.parse().ok()).collect();
        let ids: Vec<PostId> = ids.into_iter().collect();
        for _ in 0..ATTEMPTS {
            let Some(watermark) = self.watermarks.get(&partition).cloned() else { return Ok(()) };
            let folded = self.fold_from_log(&ids).await?;
            if !folded.unreadable.is_empty() {
                folded.unreadable.into_iter().for_each(|page| self.halt_at(page));
                return Ok(());
            }
            let fill = Fill {
                partition,
                incarnation: watermark.incarnation,
                epoch: watermark.epoch.clone(),
                as_of: folded.as_of,
                // What was touched again above has been filled already, or is being applied.
                rows: folded.rows.into_iter().filter(|(_, row)| row.position < below).collect(),
                unfilled_below: Some(lowest),
                flags: vec![],
            };
            match self.views.fill_part(&fill, below).await.context("filling views")? {
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

    fn note_filled(&mut self, partition: Partition, lowest: Position) {
        metrics::gauge!("projector_unfilled_below", "partition" => partition.to_string())
            .set(lowest.0 as f64);
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

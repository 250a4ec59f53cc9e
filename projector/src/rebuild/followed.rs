//! Every generation that is kept up to date: the active one first, then those beside it.

use std::time::Duration;

use domain::{Partition, Position};
use event_log::{EventLog, GenerationState, Generations};
use read_model::{VIEW_VERSION, Views};

use crate::apply::{Projection, Waiting};
use crate::halted::Halted;
use crate::recovery::{Heads, Standstill};
use crate::retries::Retries;

/// All generations of our version of the views that readers are answered from, were, or will be.
#[derive(Debug)]
pub(crate) struct Followed {
    log: EventLog,
    views: Views,
    halted: Halted,
    /// The active one first, if there is one.
    each: Vec<Follower>,
}

#[derive(Debug)]
struct Follower {
    number: u32,
    projection: Projection,
    standstill: Standstill,
    retries: Retries,
}

/// A part of a generation that is to be filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unfilled {
    generation: u32,
    pub partition: Partition,
    below: Position,
}

impl Unfilled {
    /// In which order parts are filled.
    pub(crate) fn turn(&self) -> (u32, Partition) {
        (self.generation, self.partition)
    }
}

/// The generations to follow, the active one first.
pub(crate) async fn to_follow(generations: &Generations) -> anyhow::Result<Vec<u32>> {
    let mut followed = generations.all().await?;
    followed.retain(|generation| {
        generation.view_version == VIEW_VERSION && generation.state.is_followed()
    });
    followed.sort_by_key(|generation| generation.state != GenerationState::Active);
    Ok(followed.iter().map(|generation| generation.number).collect())
}

impl Followed {
    pub(crate) fn new(log: EventLog, views: Views, halted: Halted, generations: &[u32]) -> Self {
        let mut followed = Self { log, views, halted, each: vec![] };
        followed.are(generations);
        followed
    }

    /// Follows these from now on. What a new one lacks is found in the log.
    fn are(&mut self, generations: &[u32]) {
        let mut before = std::mem::take(&mut self.each);
        for number in generations {
            let known = before.iter().position(|follower| follower.number == *number);
            self.each.push(match known {
                Some(index) => before.swap_remove(index),
                None => {
                    tracing::info!(generation = number, "Following the log in generation {number}");
                    self.follower(*number)
                }
            });
        }
        // One that is kept again tells no numbers any more.
        for (index, follower) in self.each.iter_mut().enumerate() {
            follower.projection.is_measured = index == 0;
        }
        for gone in before {
            let number = gone.number;
            tracing::info!(generation = number, "Following the log in generation {number} no more");
        }
    }

    fn follower(&self, number: u32) -> Follower {
        let views = self.views.of_generation(number);
        let projection = Projection::new(self.log.clone(), views, self.halted.clone());
        Follower {
            number,
            projection,
            standstill: Standstill::default(),
            retries: Retries::default(),
        }
    }

    /// Brings what waits into the views. After an error in the active generation the rest still waits, and may be tried
    /// again. The others must not hold it up: what they miss they find in the log.
    pub(crate) async fn apply(&mut self, waiting: &mut Waiting) -> anyhow::Result<()> {
        let Some((first, others)) = self.each.split_first_mut() else {
            waiting.clear();
            return Ok(());
        };
        let copies: Vec<Waiting> = others.iter().map(|_| waiting.clone()).collect();
        first.projection.apply(waiting).await?;
        for (other, mut waiting) in others.iter_mut().zip(copies) {
            if let Err(error) = other.projection.apply(&mut waiting).await {
                let number = other.number;
                tracing::warn!("Generation {number} misses a batch for now: {error:#}");
            }
        }
        Ok(())
    }

    /// Whether the views that readers are answered from can all be read and written.
    pub(crate) fn is_whole(&self) -> bool {
        self.each.first().is_none_or(|active| active.projection.away.is_empty())
    }

    /// Kafka has more for us than we have taken.
    pub(crate) fn more_waits(&mut self) {
        for follower in &mut self.each {
            follower.standstill.more_waits();
        }
    }

    /// Kafka has brought something for a partition.
    pub(crate) fn heard_of(&mut self, partition: Partition) {
        for follower in &mut self.each {
            follower.standstill.heard_of(partition);
        }
    }

    /// Compares the watermarks of each with the heads of the log, after seeing which there are now.
    pub(crate) async fn compare(
        &mut self,
        heads: &Heads,
        patience: Duration,
    ) -> anyhow::Result<()> {
        self.are(&heads.generations);
        let mut outcome = Ok(());
        for Follower { projection, standstill, .. } in &mut self.each {
            let compared = projection.compare(heads, standstill, patience).await;
            outcome = outcome.and(compared);
        }
        outcome
    }

    /// What is not filled yet, the active generation's first.
    pub(crate) fn unfilled(&self) -> impl Iterator<Item = Unfilled> {
        self.each.iter().flat_map(|follower| {
            let generation = follower.number;
            let unfilled = follower.projection.unfilled();
            unfilled.map(move |(partition, below)| Unfilled { generation, partition, below })
        })
    }

    /// Fills a part of it.
    pub(crate) async fn fill(&mut self, unfilled: Unfilled) -> anyhow::Result<()> {
        let found = self.each.iter_mut().find(|follower| follower.number == unfilled.generation);
        match found {
            Some(follower) => follower.projection.fill(unfilled.partition, unfilled.below).await,
            None => Ok(()),
        }
    }

    /// Lets pages that were set aside be tried again, now that a second has gone by.
    pub(crate) fn come_due(&mut self) {
        self.each.iter_mut().for_each(|follower| follower.retries.come_due());
    }

    pub(crate) fn has_retries_due(&self) -> bool {
        self.each.iter().any(|follower| follower.retries.are_due())
    }

    /// Tries one of them.
    pub(crate) async fn retry(&mut self) {
        let due = self.each.iter_mut().find(|follower| follower.retries.are_due());
        if let Some(Follower { projection, retries, .. }) = due {
            retries.next(&projection.log, &projection.views).await;
        }
    }
}

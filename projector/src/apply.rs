//! What comes next in each partition: a run of events, a look into the log, or a new beginning.
//!
//! What happens here may happen twice, late, or in two processes at once. The guard lets each event in once
//! and in order, or answers where the views stand; then the events are looked at again from there.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use domain::{Message, Partition, Position};
use event_log::EventLog;
use read_model::{Judgement, Views, Watermark, judge};
use service_runtime::progress;

use crate::halted::Halted;
use crate::metrics;
use crate::runs::Run;

/// A partition that lacks more events than this is begun anew instead of being caught up.
const MAX_GAP: u32 = 10_000;

/// Keeps the views up to date.
#[derive(Debug)]
pub struct Projection {
    pub(crate) log: EventLog,
    pub(crate) views: Views,
    /// Where the views stood when they were last heard of. Only a hint: the guard knows.
    pub(crate) watermarks: HashMap<Partition, Watermark>,
    pub(crate) halted: Halted,
    /// Partitions whose views could not be read or written, while those of others could: the one node of a
    /// cluster is away that has them, or they move to another. Looked for again once a second.
    pub(crate) away: BTreeSet<Partition>,
    /// Discarded events whose fold panics: they are passed over.
    pub(crate) discarded: HashSet<Position>,
    /// Whether numbers are told of it. They are of the views that readers are answered from.
    pub(crate) is_measured: bool,
}

/// Messages that wait to be applied, partition by partition, in order.
pub type Waiting = BTreeMap<Partition, VecDeque<Message>>;

/// What is to be done next in a partition.
enum Step {
    /// All that waited had been seen before.
    Nothing,
    Apply(Run),
    /// The views were lost, or cannot be trusted.
    BeginAnew,
}

impl Projection {
    pub fn new(log: EventLog, views: Views, halted: Halted) -> Self {
        let (watermarks, away, discarded, is_measured) = Default::default();
        Self { log, views, watermarks, halted, away, discarded, is_measured }
    }

    /// Brings what waits into the views. After an error the rest still waits, and may be tried again: what is
    /// wrong with one partition keeps none of the others waiting. What waits for one that is away is let go:
    /// the log has it.
    pub async fn apply(&mut self, waiting: &mut Waiting) -> anyhow::Result<()> {
        loop {
            progress::tick();
            waiting.retain(|partition, queue| {
                !queue.is_empty()
                    && !self.halted.contains(*partition)
                    && !self.away.contains(partition)
            });
            if waiting.is_empty() {
                return Ok(());
            }
            if waiting.keys().any(|partition| !self.watermarks.contains_key(partition)) {
                self.look_up_watermarks().await?;
            }
            let mut runs = Vec::new();
            let mut outcome = Ok(());
            for (partition, queue) in waiting.iter_mut() {
                if self.away.contains(partition) {
                    continue;
                }
                progress::tick();
                match self.next_step(*partition, queue).await {
                    Ok(Step::Nothing) => {}
                    Ok(Step::Apply(run)) => runs.push((*partition, run)),
                    Ok(Step::BeginAnew) => {
                        outcome = outcome.and(self.begin_epoch(*partition).await);
                    }
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
            progress::tick();
            for (partition, to) in self.advance(runs).await? {
                if let Some(queue) = waiting.get_mut(&partition) {
                    while queue
                        .pop_front_if(|message| message.event.position <= to.position)
                        .is_some()
                    {}
                }
            }
            outcome?;
        }
    }

    /// Applies what the log holds of a partition above its watermark, without waiting for Kafka to bring it.
    /// It ends at a position that the log has reached already: there is always more where many write.
    pub(crate) async fn catch_up(
        &mut self,
        partition: Partition,
        to: Position,
    ) -> anyhow::Result<()> {
        while self.come_closer(partition, to).await? > 0 {}
        Ok(())
    }

    /// One step of that. Returns how many events it was offered; zero: there is no step to take.
    pub(crate) async fn come_closer(
        &mut self,
        partition: Partition,
        to: Position,
    ) -> anyhow::Result<u64> {
        progress::tick();
        let Some(watermark) = self.watermarks.get(&partition) else { return Ok(0) };
        let from = watermark.point;
        let cannot_move = self.halted.contains(partition) || self.away.contains(&partition);
        if from.position >= to || cannot_move {
            return Ok(0);
        }
        let run = self.read_run(partition, from).await?;
        if run.is_empty() {
            return Ok(0);
        }
        let events = run.len();
        progress::tick();
        self.advance(vec![(partition, run)]).await?;
        Ok(events)
    }

    /// Drops what has been seen, and finds what comes next.
    async fn next_step(
        &self,
        partition: Partition,
        queue: &mut VecDeque<Message>,
    ) -> anyhow::Result<Step> {
        let found = self.watermarks.get(&partition);
        let Some(watermark) = found.filter(|found| found.is_of_this_version()) else {
            return Ok(Step::BeginAnew);
        };
        while let Some(first) = queue.front() {
            let judgement =
                judge(watermark, first.incarnation, first.previous, first.event.point());
            count(judgement);
            match judgement {
                Judgement::Duplicate => {
                    queue.pop_front();
                }
                Judgement::Next => {
                    let run = Run::of(watermark, queue.iter());
                    if !run.is_empty() {
                        return Ok(Step::Apply(run));
                    }
                    return self.step_by_the_log(partition, watermark, first).await;
                }
                Judgement::Gap | Judgement::Fork => {
                    return self.step_by_the_log(partition, watermark, first).await;
                }
            }
        }
        Ok(Step::Nothing)
    }

    /// Continues from the log where a message does not follow the views, cannot be read, or leaves its
    /// payload in the log.
    async fn step_by_the_log(
        &self,
        partition: Partition,
        watermark: &Watermark,
        message: &Message,
    ) -> anyhow::Result<Step> {
        if self.is_of_another_log(partition, watermark).await? {
            tracing::error!(partition = %partition, "Partition {partition} forks: its log is not the one its views came from");
            return Ok(Step::BeginAnew);
        }
        let run = self.read_run(partition, watermark.point).await?;
        if run.is_empty() {
            if !self.halted.contains(partition) {
                // Whatever we did, this would be so again: somebody has to look.
                let at = message.event.position;
                self.halted.halt(partition, at, "Kafka has events that the log has not");
            }
            return Ok(Step::Nothing);
        }
        if self.lacks_too_much(partition, watermark, message.previous.position).await? {
            return Ok(Step::BeginAnew);
        }
        if message.is_stub() {
            tracing::debug!(partition = %partition, "stub in Kafka, reading from Postgres");
        } else {
            tracing::warn!(partition = %partition, "gap in Kafka, reading from Postgres");
        }
        Ok(Step::Apply(run))
    }

    /// Whether it would take longer to catch up with a position than to begin anew.
    pub(crate) async fn lacks_too_much(
        &self,
        partition: Partition,
        watermark: &Watermark,
        to: Position,
    ) -> anyhow::Result<bool> {
        let above = watermark.point.position;
        let missing = self.log.count_between(partition, above, to, MAX_GAP + 1).await?;
        Ok(missing > MAX_GAP.into())
    }
}

fn count(judgement: Judgement) {
    let name = match judgement {
        Judgement::Next => "applied",
        Judgement::Duplicate => "duplicate",
        Judgement::Gap => "gap",
        Judgement::Fork => "fork",
    };
    ::metrics::counter!(metrics::JUDGEMENTS, "judgement" => name).increment(1);
}

//! Events to folds to guarded writes: in batches, a run of events for each partition.
//!
//! What happens here may happen twice, late, or in two processes at once. The guard lets each event in once
//! and in order, or answers where the views stand; then the events are looked at again from there.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anyhow::Context;
use domain::post::PostEvent;
use domain::{
    Claim, Message, Partition, Point, Position, PostId, RawEvent, Recorded, Slug, StoredEvent,
    Undecodable,
};
use event_log::EventLog;
use read_model::{
    Advance, Guarded, Judgement, Row, StoredRow, Views, Watermark, fold_pages, judge,
};

use crate::halted::Halted;

/// How many events are read from the log at once where Kafka has not brought them.
const PAGE: u32 = 500;
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
}

/// Messages that wait to be applied, partition by partition, in order.
pub type Waiting = BTreeMap<Partition, VecDeque<Message>>;

/// Events without a hole between them, behind where the watermark stands.
struct Run {
    from: Point,
    events: Vec<Recorded<PostEvent>>,
}

/// Pages as the log has them.
pub(crate) struct Folded {
    /// No event of these pages at or below this position is missing.
    pub as_of: Position,
    pub rows: HashMap<PostId, Row>,
    /// Where pages end early.
    pub unreadable: Vec<Unreadable>,
}

/// The first event of a page that cannot be read.
pub(crate) struct Unreadable {
    stream_id: String,
    partition: Partition,
    position: Position,
    error: Undecodable,
}

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
        Self { log, views, watermarks: HashMap::new(), halted }
    }

    /// Brings what waits into the views. After an error the rest still waits, and may be tried again.
    pub async fn apply(&mut self, waiting: &mut Waiting) -> anyhow::Result<()> {
        loop {
            waiting
                .retain(|partition, queue| !queue.is_empty() && !self.halted.contains(*partition));
            if waiting.is_empty() {
                return Ok(());
            }
            if waiting.keys().any(|partition| !self.watermarks.contains_key(partition)) {
                self.look_up_watermarks().await?;
            }
            let mut runs = Vec::new();
            for (partition, queue) in waiting.iter_mut() {
                match self.next_step(*partition, queue).await? {
                    Step::Nothing => {}
                    Step::Apply(run) => runs.push((*partition, run)),
                    Step::BeginAnew => self.begin_epoch(*partition).await?,
                }
            }
            for (partition, to) in self.advance(runs).await? {
                if let Some(queue) = waiting.get_mut(&partition) {
                    while queue
                        .pop_front_if(|message| message.event.position <= to.position)
                        .is_some()
                    {}
                }
            }
        }
    }

    /// Applies what the log holds of a partition above its watermark, without waiting for Kafka to bring it.
    /// It ends at a position that the log has reached already: there is always more where many write.
    pub(crate) async fn catch_up(
        &mut self,
        partition: Partition,
        to: Position,
    ) -> anyhow::Result<()> {
        while let Some(watermark) = self.watermarks.get(&partition) {
            let from = watermark.point;
            if from.position >= to || self.halted.contains(partition) {
                return Ok(());
            }
            let run = self.read_run(partition, from).await?;
            if run.events.is_empty() {
                return Ok(());
            }
            self.advance(vec![(partition, run)]).await?;
        }
        Ok(())
    }

    pub(crate) async fn look_up_watermarks(&mut self) -> anyhow::Result<()> {
        let found = self.views.watermarks().await.context("reading the watermarks")?;
        let partitions = self.log.partitions().all();
        self.watermarks = partitions.zip(found).filter_map(|(p, mark)| Some((p, mark?))).collect();
        Ok(())
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
                    return Ok(Step::Apply(self.take_run(partition, watermark, queue)));
                }
                Judgement::Gap | Judgement::Fork => {
                    return self.step_by_the_log(partition, watermark, first).await;
                }
            }
        }
        Ok(Step::Nothing)
    }

    /// What comes next where a message does not follow the views: the log tells which of the two is wrong.
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
        if run.events.is_empty() {
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
        tracing::warn!(partition = %partition, "Filling a gap in partition {partition}");
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

    /// What follows without a hole at the front of the queue. It stays there until it is in the views.
    fn take_run(
        &self,
        partition: Partition,
        watermark: &Watermark,
        queue: &VecDeque<Message>,
    ) -> Run {
        let mut at = watermark.point;
        let follows = |message: &&Message| {
            let follows = message.previous == at && message.incarnation == watermark.incarnation;
            at = message.event.point();
            follows
        };
        let events = queue.iter().take_while(follows).map(|message| message.event.clone());
        self.decode_run(partition, watermark.point, events)
    }

    /// Reads from the log what follows a point.
    async fn read_run(&self, partition: Partition, from: Point) -> anyhow::Result<Run> {
        let events = self.log.read_partition_after(partition, from.position, PAGE).await?;
        Ok(self.decode_run(partition, from, events))
    }

    /// Reads events up to the first that cannot be read. That one halts the partition once it comes first:
    /// what is before it is applied.
    fn decode_run(
        &self,
        partition: Partition,
        from: Point,
        events: impl IntoIterator<Item = Recorded<RawEvent>>,
    ) -> Run {
        let mut run = Run { from, events: Vec::new() };
        for event in events {
            let position = event.position;
            match PostEvent::decode(event) {
                Ok(event) => run.events.push(event),
                Err(error) => {
                    if run.events.is_empty() {
                        self.halted.halt(partition, position, error);
                    }
                    break;
                }
            }
        }
        run
    }

    /// Folds runs, one for each partition, and offers them to the guard in one exchange. Returns which
    /// partitions have moved, and up to where.
    async fn advance(
        &mut self,
        mut runs: Vec<(Partition, Run)>,
    ) -> anyhow::Result<Vec<(Partition, Point)>> {
        let mut rows = self.rows_before(&runs).await?;
        // An event or a page that cannot be folded has halted its partition.
        runs.retain(|(partition, run)| !run.events.is_empty() && !self.halted.contains(*partition));
        let mut advances = Vec::with_capacity(runs.len());
        for (partition, run) in &runs {
            let watermark = self.watermarks.get(partition).context("a run without a watermark")?;
            advances.push(fold_run(*partition, watermark, run, &mut rows));
        }
        if advances.is_empty() {
            return Ok(Vec::new());
        }
        let answers = self.views.advance(&advances).await.context("writing views")?;
        let mut moved = Vec::with_capacity(advances.len());
        for (advance, answer) in advances.iter().zip(answers) {
            if answer == Guarded::Written {
                moved.push((advance.partition, advance.to));
            }
            self.take_note(advance, answer);
        }
        Ok(moved)
    }

    /// The rows that the runs change, as they are before.
    async fn rows_before(&self, runs: &[(Partition, Run)]) -> anyhow::Result<HashMap<PostId, Row>> {
        let mut first_change: HashMap<PostId, u64> = HashMap::new();
        for event in runs.iter().flat_map(|(_, run)| &run.events) {
            if let Ok(id) = event.stream_id.parse() {
                first_change.entry(id).or_insert(event.sequence);
            }
        }
        // What begins in this run has no row yet.
        first_change.retain(|_, sequence| *sequence > 1);
        if first_change.is_empty() {
            return Ok(HashMap::new());
        }
        let ids: Vec<PostId> = first_change.keys().copied().collect();
        let stored = self.views.rows(&ids).await.context("reading rows")?;
        let mut rows = HashMap::with_capacity(ids.len());
        let mut missing = Vec::new();
        for (id, found) in ids.into_iter().zip(stored) {
            match found.row.as_ref().and_then(|row| usable(row, first_change[&id])) {
                Some(row) => {
                    rows.insert(id, row);
                }
                None => missing.push(id),
            }
        }
        let folded = self.fold_from_log(&missing).await?;
        for page in folded.unreadable {
            // One that ends early further on is whole as far as it is needed here.
            let at = self.watermarks.get(&page.partition).map(|watermark| watermark.point.position);
            if at.is_none_or(|at| page.position <= at) {
                self.halt_at(page);
            }
        }
        rows.extend(folded.rows);
        Ok(rows)
    }

    fn take_note(&mut self, advance: &Advance, answer: Guarded) {
        let partition = advance.partition;
        match answer {
            Guarded::Written => {
                if let Some(watermark) = self.watermarks.get_mut(&partition) {
                    watermark.point = advance.to;
                }
                metrics::gauge!("projector_watermark", "partition" => partition.to_string())
                    .set(advance.to.position.0 as f64);
            }
            // Somebody else wrote, or the views were lost. What waits is judged anew.
            Guarded::Refused(Some(found)) => {
                self.watermarks.insert(partition, found);
            }
            Guarded::Refused(None) => {
                self.watermarks.remove(&partition);
            }
        }
    }

    /// Folds whole pages, each up to the first event that cannot be read.
    pub(crate) async fn fold_from_log(&self, ids: &[PostId]) -> anyhow::Result<Folded> {
        let pages = self.log.pages(ids).await?;
        let mut events = Vec::with_capacity(pages.events.len());
        let mut unreadable: Vec<Unreadable> = Vec::new();
        for event in pages.events {
            let (stream_id, position) = (event.stream_id.clone(), event.position);
            if unreadable.last().is_some_and(|page| page.stream_id == stream_id) {
                continue;
            }
            match PostEvent::decode(event) {
                Ok(event) => events.push(event),
                Err(error) => {
                    let partition = self.log.partitions().of(&stream_id);
                    unreadable.push(Unreadable { stream_id, partition, position, error });
                }
            }
        }
        Ok(Folded { as_of: pages.as_of, rows: fold_pages(&events), unreadable })
    }

    pub(crate) fn halt_at(&self, page: Unreadable) {
        self.halted.halt(page.partition, page.position, page.error);
    }
}

fn fold_run(
    partition: Partition,
    watermark: &Watermark,
    run: &Run,
    rows: &mut HashMap<PostId, Row>,
) -> Advance {
    let mut changed = HashMap::new();
    let mut slugs: Vec<(Slug, Claim)> = Vec::new();
    for event in &run.events {
        let Ok(id) = event.stream_id.parse::<PostId>() else { continue };
        let before = changed.remove(&id).or_else(|| rows.remove(&id));
        changed.insert(id, Row::fold(before, event, id));
        let claim = Claim { post_id: id, position: event.position };
        slugs.extend(event.payload.claimed_slug().map(|slug| (slug.clone(), claim)));
    }
    Advance {
        partition,
        incarnation: watermark.incarnation,
        epoch: watermark.epoch.clone(),
        from: run.from,
        to: run.events.last().map_or(run.from, Recorded::point),
        rows: changed.into_iter().collect(),
        slugs,
        flags: vec![],
    }
}

/// A stored row, if the event with this sequence can be folded into it.
fn usable(stored: &StoredRow, next_sequence: u64) -> Option<Row> {
    let row = Row::try_from(stored).ok()?;
    let version = row.page.as_ref().map(|page| page.card.version);
    // One at a later version has the event in it. One further behind than the event before has missed some.
    version.is_none_or(|version| version + 1 >= next_sequence).then_some(row)
}

fn count(judgement: Judgement) {
    let name = match judgement {
        Judgement::Next => "applied",
        Judgement::Duplicate => "duplicate",
        Judgement::Gap => "gap",
        Judgement::Fork => "fork",
    };
    metrics::counter!("projector_judgements_total", "judgement" => name).increment(1);
}

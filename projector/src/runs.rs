//! Runs of events: read, folded into the rows they change, and offered to the guard.

use std::collections::{HashMap, HashSet};

use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::post::PostEvent;
use domain::{
    Claim, Message, Partition, Point, Position, PostId, RawEvent, Recorded, Slug, StoredEvent as _,
};
use event_log::{Reading, Unreadable};
use read_model::{Advance, Flag, Guarded, Row, StoredRow, Watermark, fold_caught};

use crate::apply::Projection;
use crate::metrics;

/// How many events are read from the log at once where Kafka has not brought them.
const PAGE: u32 = 500;
/// A run ends early once the pages that it changes hold so many bytes of text, so that rendering those of one
/// partition delays no other for long.
const MAX_TEXT_BYTES: usize = 256 * 1024;
/// Runs with no more bytes of text are written before the texts of others are rendered.
const QUICK_TEXT_BYTES: usize = 64 * 1024;
/// Number of discarded events that are remembered. Beyond it the record is asked again.
const MAX_DISCARDED: usize = 10_000;

/// Events without a hole between them, behind where the watermark stands.
pub(crate) struct Run {
    from: Point,
    events: Vec<Recorded<Reading>>,
}

/// What a run meets.
#[derive(Default)]
struct Before {
    rows: HashMap<PostId, Row>,
    /// Pages that are set aside, or turn out to have to be.
    flags: HashMap<PostId, Flag>,
    unreadable: Vec<(Partition, Unreadable)>,
}

/// A run as it goes to the guard.
struct Planned {
    advance: Advance,
    /// Events that set their pages aside. They have to be on record before that.
    unreadable: Vec<Unreadable>,
    events: usize,
    /// When the first of them was recorded.
    oldest: Option<DateTime<Utc>>,
}

impl Run {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn len(&self) -> u64 {
        self.events.len() as u64
    }

    /// What follows without a hole from the watermark on, up to the first that cannot be read, or is a stub: about
    /// that one only the log is believed.
    pub(crate) fn of<'a>(
        watermark: &Watermark,
        queue: impl IntoIterator<Item = &'a Message>,
    ) -> Self {
        let mut at = watermark.point;
        let follows = |message: &&Message| {
            let follows = message.previous == at && message.incarnation == watermark.incarnation;
            at = message.event.point();
            follows
        };
        let event = |message: &Message| {
            if message.is_stub() {
                return None;
            }
            let event = PostEvent::decode(message.event.clone()).ok()?;
            event.try_map(|event| Ok::<_, ()>(Reading::Event(event))).ok()
        };
        let events = queue.into_iter().take_while(follows).map_while(event).collect();
        Self { from: watermark.point, events }
    }
}

impl Projection {
    /// Reads from the log what follows a point.
    pub(crate) async fn read_run(&self, partition: Partition, from: Point) -> anyhow::Result<Run> {
        let stored = self.log.read_partition_after(partition, from.position, PAGE).await?;
        let stored: Vec<Recorded<RawEvent>> = stored;
        Ok(Run { from, events: self.log.read(stored).await? })
    }

    /// Folds runs, one for each partition, and offers them to the guard in two exchanges at most. Returns which
    /// partitions have moved, and up to where. After an error with one of them, the others have moved too.
    pub(crate) async fn advance(
        &mut self,
        mut runs: Vec<(Partition, Run)>,
    ) -> anyhow::Result<Vec<(Partition, Point)>> {
        runs.retain(|(_, run)| !run.is_empty());
        let mut before = self.rows_before_those_there(&mut runs).await?;
        let mut planned = Vec::with_capacity(runs.len());
        for (partition, run) in runs {
            let watermark = self.watermarks.get(&partition).context("a run without a watermark")?;
            planned.push(self.fold_run(partition, watermark, run, &mut before));
        }
        let recorded = self.put_on_record(&mut planned).await;
        let moved = self.offer(planned).await?;
        recorded.map(|()| moved)
    }

    /// Puts on record what sets pages aside. Runs that must not go out then are dropped: all that have such
    /// events if it fails, and those with one that has just been discarded.
    async fn put_on_record(&mut self, planned: &mut Vec<Planned>) -> anyhow::Result<()> {
        if planned.iter().all(|run| run.unreadable.is_empty()) {
            return Ok(());
        }
        let events = planned.iter().flat_map(|run| &run.unreadable);
        let recorded = self.quarantine(events).await;
        let discarded = recorded.as_ref().ok();
        if self.discarded.len() > MAX_DISCARDED {
            self.discarded.clear();
        }
        self.discarded.extend(discarded.into_iter().flatten());
        planned.retain(|run| {
            run.unreadable.is_empty()
                || discarded.is_some_and(|discarded| {
                    !run.unreadable.iter().any(|event| discarded.contains(&event.position))
                })
        });
        recorded.map(|_| ())
    }

    /// Puts events on record. Answers which of them are left out for good: they set nothing aside.
    pub(crate) async fn quarantine<'a>(
        &self,
        events: impl Iterator<Item = &'a Unreadable> + Clone,
    ) -> anyhow::Result<HashSet<Position>> {
        let added = self.log.quarantine(events.clone()).await?;
        ::metrics::counter!(metrics::QUARANTINES).increment(added);
        if added > 0 {
            for Unreadable { stream_id, position, reason } in events.clone() {
                tracing::error!(
                    post.id = stream_id, %position,
                    "Post {stream_id} is set aside from position {position} on: {reason}"
                );
            }
        }
        let positions: Vec<Position> = events.map(|event| event.position).collect();
        match positions.is_empty() {
            true => Ok(HashSet::new()),
            false => Ok(self.log.discarded_among(&positions).await?.into_iter().collect()),
        }
    }

    /// Offers runs, first those whose texts are soon rendered.
    async fn offer(&mut self, planned: Vec<Planned>) -> anyhow::Result<Vec<(Partition, Point)>> {
        let is_quick = |run: &Planned| {
            let bytes = run.advance.rows.iter().map(|(_, row)| text_bytes(row));
            bytes.sum::<usize>() <= QUICK_TEXT_BYTES
        };
        let (quick, slow): (Vec<_>, Vec<_>) = planned.into_iter().partition(is_quick);
        let mut moved = self.offer_together(quick).await?;
        moved.extend(self.offer_together(slow).await?);
        Ok(moved)
    }

    async fn offer_together(
        &mut self,
        planned: Vec<Planned>,
    ) -> anyhow::Result<Vec<(Partition, Point)>> {
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        let (advances, counted): (Vec<Advance>, Vec<_>) =
            planned.into_iter().map(|run| (run.advance, (run.events, run.oldest))).unzip();
        let answers = self.views.advance(&advances).await.context("writing views")?;
        let mut moved = Vec::with_capacity(advances.len());
        let mut failed = Vec::new();
        for ((advance, answer), (events, oldest)) in advances.iter().zip(answers).zip(counted) {
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    failed.push((advance.partition, error));
                    continue;
                }
            };
            if answer == Guarded::Written {
                moved.push((advance.partition, advance.to));
                if self.is_measured {
                    ::metrics::counter!(metrics::EVENTS).increment(events as u64);
                }
                if let Some(oldest) = oldest.filter(|_| self.is_measured) {
                    let waited = (Utc::now() - oldest).to_std().unwrap_or_default();
                    ::metrics::histogram!(metrics::VISIBLE).record(waited);
                }
            }
            self.take_note(advance, answer);
        }
        if !failed.is_empty() {
            self.leave_out(failed).await?;
        }
        Ok(moved)
    }

    /// What the runs meet. Those of partitions that turn out to be away are dropped.
    async fn rows_before_those_there(
        &mut self,
        runs: &mut Vec<(Partition, Run)>,
    ) -> anyhow::Result<Before> {
        loop {
            let error = match self.rows_before(runs).await {
                Ok(before) => return Ok(before),
                Err(error) => error,
            };
            self.look_up_watermarks().await?;
            let all = runs.len();
            runs.retain(|(partition, _)| !self.away.contains(partition));
            if runs.len() == all {
                return Err(error);
            }
        }
    }

    /// The rows that the runs change, as they are before, and which pages are set aside.
    async fn rows_before(&self, runs: &[(Partition, Run)]) -> anyhow::Result<Before> {
        let mut first_change: HashMap<PostId, (u64, Partition)> = HashMap::new();
        for (partition, run) in runs {
            for event in &run.events {
                if let Ok(id) = event.stream_id.parse() {
                    first_change.entry(id).or_insert((event.sequence, *partition));
                }
            }
        }
        // What begins in this run has no row yet.
        first_change.retain(|_, (sequence, _)| *sequence > 1);
        let mut before = Before::default();
        if first_change.is_empty() {
            return Ok(before);
        }
        let ids: Vec<PostId> = first_change.keys().copied().collect();
        let stored = self.views.rows(&ids).await.context("reading rows")?;
        let mut missing = Vec::new();
        for (id, found) in ids.into_iter().zip(stored) {
            if found.quarantined.is_some() {
                before.flags.insert(id, Flag::Still);
                continue;
            }
            match found.row.as_ref().and_then(|row| usable(row, first_change[&id].0)) {
                Some(row) => {
                    before.rows.insert(id, row);
                }
                None => missing.push(id),
            }
        }
        // Nothing needs the log, which may be away.
        if missing.is_empty() {
            return Ok(before);
        }
        let folded = self.fold_from_log(&missing).await?;
        for page in folded.unreadable {
            let Ok(id) = page.stream_id.parse::<PostId>() else { continue };
            let (_, partition) = first_change[&id];
            let at = self.watermarks.get(&partition).map(|watermark| watermark.point.position);
            // One that ends early further on is whole as far as it is needed here.
            if at.is_none_or(|at| page.position <= at) {
                before.flags.insert(id, Flag::Quarantined(page.position));
                before.unreadable.push((partition, page));
            }
        }
        before.rows.extend(folded.rows);
        Ok(before)
    }

    fn take_note(&mut self, advance: &Advance, answer: Guarded) {
        let partition = advance.partition;
        match answer {
            Guarded::Written => {
                if let Some(watermark) = self.watermarks.get_mut(&partition) {
                    watermark.point = advance.to;
                }
                self.gauge(metrics::WATERMARK, partition, advance.to.position);
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
}

impl Projection {
    /// Folds a run, or as much of it as is rendered at a time. A page with an event that cannot be read or folded stays
    /// as it was before that, and what follows for it is passed over; but not the slugs it claims, which are its own
    /// whatever else became of it.
    fn fold_run(
        &self,
        partition: Partition,
        watermark: &Watermark,
        run: Run,
        before: &mut Before,
    ) -> Planned {
        let mut changed: HashMap<PostId, Row> = HashMap::new();
        let mut flags: HashMap<PostId, Flag> = HashMap::new();
        let mut slugs: Vec<(Slug, Claim)> = Vec::new();
        let (of_this, others) = std::mem::take(&mut before.unreadable)
            .into_iter()
            .partition(|(of, _)| *of == partition);
        before.unreadable = others;
        let of_this: Vec<(Partition, Unreadable)> = of_this;
        let mut unreadable: Vec<Unreadable> = of_this.into_iter().map(|(_, page)| page).collect();
        let oldest = run.events.first().map(|event| event.recorded_at);
        let (mut to, mut events, mut bytes) = (run.from, 0, 0);

        for event in run.events {
            if bytes >= MAX_TEXT_BYTES {
                break;
            }
            (to, events) = (event.point(), events + 1);
            let (position, sequence) = (event.position, event.sequence);
            let id = event.stream_id.parse::<PostId>().ok();
            let stream_id = event.stream_id.clone();
            let read = event.try_map(|reading| match reading {
                Reading::Event(event) => Ok(event),
                Reading::Discarded => Err(None),
                Reading::Unreadable(error) => Err(Some(error)),
            });
            let Some(id) = id else {
                // It has no page that could be quarantined; it is put on record all the same.
                if let Err(Some(error)) = read {
                    unreadable.push(Unreadable::undecodable(stream_id, position, &error));
                }
                continue;
            };
            if let Ok(event) = &read
                && let Some(slug) = event.payload.claimed_slug()
            {
                slugs.push((slug.clone(), Claim { post_id: id, position }));
            }
            let known = changed.remove(&id);
            bytes -= known.as_ref().map_or(0, text_bytes);
            let mut row = known.or_else(|| before.rows.remove(&id));
            if let Some(flag) = before.flags.get(&id) {
                flags.insert(id, *flag);
                bytes += row.as_ref().map_or(0, text_bytes);
                changed.extend(row.map(|row| (id, row)));
                continue;
            }
            let folded = match read {
                Ok(event) => fold_caught(self.views.fold(), &mut row, &event, id)
                    .map_err(|panic| Unreadable { stream_id, position, reason: panic.to_string() }),
                Err(None) => {
                    row = Some(Row::pass_over(row, position, sequence));
                    Ok(())
                }
                Err(Some(error)) => Err(Unreadable::undecodable(stream_id, position, &error)),
            };
            match folded {
                Ok(()) => {}
                Err(_) if self.discarded.contains(&position) => {
                    row = Some(Row::pass_over(row, position, sequence));
                }
                Err(end) => {
                    before.flags.insert(id, Flag::Quarantined(position));
                    flags.insert(id, Flag::Quarantined(position));
                    unreadable.push(end);
                }
            }
            bytes += row.as_ref().map_or(0, text_bytes);
            changed.extend(row.map(|row| (id, row)));
        }
        let advance = Advance {
            partition,
            incarnation: watermark.incarnation,
            epoch: watermark.epoch.clone(),
            from: run.from,
            to,
            rows: changed.into_iter().collect(),
            slugs,
            flags: flags.into_iter().collect(),
        };
        Planned { advance, unreadable, events, oldest }
    }
}

fn text_bytes(row: &Row) -> usize {
    row.page.as_ref().map_or(0, |page| page.content.len())
}

/// A stored row, if the event with this sequence can be folded into it.
fn usable(stored: &StoredRow, next_sequence: u64) -> Option<Row> {
    let row = Row::try_from(stored).ok()?;
    let version = row.page.as_ref().map(|page| page.card.version);
    // One at a later version has the event in it. One further behind than the event before has missed some.
    version.is_none_or(|version| version + 1 >= next_sequence).then_some(row)
}

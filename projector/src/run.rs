//! The loop: a batch from Kafka, a look at the heads of the log, or a piece of filling, whichever is due.

use std::time::Duration;

use anyhow::Context;
use event_log::{EventLog, Generations, Probe};
use service_runtime::{Check, progress};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::apply::Waiting;
use crate::consumer::{MAX_MESSAGES, Partitions};
use crate::metrics;
use crate::rebuild::followed::{self, Followed, Unfilled};
use crate::recovery::Heads;
use crate::undecodable::Copies;

/// How often the heads of the log are read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Interval at which the loop comes round when there is nothing to do.
const BEAT: Duration = Duration::from_secs(1);
/// Timeout of the question whether Postgres is there, and the primary.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How many messages wait at most when some cannot be applied, but for one batch.
const MAX_WAITING: usize = 2 * MAX_MESSAGES;

/// Reads the heads of the log once a second. A task of its own, so that a Postgres that does not answer
/// holds up no event from Kafka.
#[derive(Debug)]
pub(crate) struct HeadsTask {
    probe: Probe,
    log: EventLog,
    generations: Generations,
    seen: watch::Sender<Heads>,
    postgres: Check,
    quarantine: Check,
}

impl HeadsTask {
    pub(crate) fn new(
        probe: Probe,
        log: EventLog,
        generations: Generations,
        postgres: Check,
        quarantine: Check,
    ) -> (Self, watch::Receiver<Heads>) {
        let (seen, heads) = watch::channel(Heads::default());
        quarantine.ready();
        (Self { probe, log, generations, seen, postgres, quarantine }, heads)
    }

    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(LOOK_AGAIN);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            progress::tick();
            match stop.run_until_cancelled(self.read()).await {
                None => {}
                Some(Ok(heads)) => {
                    self.postgres.ready();
                    self.seen.send_replace(heads);
                }
                Some(Err(error)) => self.postgres.not_ready(format!("{error:#}")),
            }
        }
        Ok(())
    }

    async fn read(&self) -> anyhow::Result<Heads> {
        // The pool would only say that no connection is to be had.
        let probing = tokio::time::timeout(PROBE_TIMEOUT, self.probe.connection()).await;
        self.probe.keep(probing.context("Postgres took too long")??);
        progress::tick();
        let quarantined = self.log.count_quarantined().await?;
        progress::tick();
        ::metrics::gauge!(metrics::QUARANTINED).set(quarantined as f64);
        match quarantined {
            0 => self.quarantine.ready(),
            _ => self.quarantine.degraded(format!(
                "{quarantined} pages are set aside; see `projector quarantine list`"
            )),
        }
        let incarnation = self.log.incarnation().await?;
        progress::tick();
        let points = self.log.heads().await?;
        progress::tick();
        let generations = followed::to_follow(&self.generations).await?;
        Ok(Heads { incarnation, points, generations })
    }
}

/// Brings events into the views.
#[derive(Debug)]
pub(crate) struct ProjectTask {
    pub followed: Followed,
    pub partitions: Partitions,
    pub copies: Copies,
    pub heads: watch::Receiver<Heads>,
    pub patience: Duration,
    pub redis: Check,
    /// Number of partitions that the topic has, once that is known.
    pub in_topic: watch::Receiver<Option<u16>>,
    /// The partition of which a piece was filled last.
    pub filled: Option<Unfilled>,
}

impl ProjectTask {
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut waiting = Waiting::new();
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            progress::tick();
            if waiting.is_empty() && self.copies.are_made() {
                self.partitions.applied();
            }
            let fill = self.next_to_fill();
            let has_room = self.copies.have_room()
                && waiting.values().map(|queue| queue.len()).sum::<usize>() < MAX_WAITING;
            let done = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // To wait for events is no hang.
                _ = beat.tick() => continue,
                mut batch = self.partitions.next_batch(), if has_room => {
                    ::metrics::counter!(metrics::BATCHES).increment(1);
                    ::metrics::histogram!(metrics::BATCH_SIZE).record(batch.messages as f64);
                    if batch.is_full() {
                        self.followed.more_waits();
                    }
                    self.copies.make(std::mem::take(&mut batch.undecodable));
                    self.partitions.took(&mut batch);
                    for (partition, queue) in batch.waiting {
                        self.followed.heard_of(partition);
                        waiting.entry(partition).or_default().extend(queue);
                    }
                    self.followed.apply(&mut waiting).await
                }
                changed = self.heads.changed() => match changed {
                    Ok(()) => unless_stopped(&stop, self.compare()).await,
                    // The task that reads them ends only when all do.
                    Err(_) => return Ok(()),
                },
                // What could not be applied; it is still in Kafka and in the log, too.
                () = std::future::ready(()), if !waiting.is_empty() => {
                    unless_stopped(&stop, self.followed.apply(&mut waiting)).await
                }
                () = std::future::ready(()), if fill.is_some() => match fill {
                    Some(unfilled) => {
                        self.filled = Some(unfilled);
                        unless_stopped(&stop, self.followed.fill(unfilled)).await
                    }
                    None => Ok(()),
                },
                () = std::future::ready(()), if self.followed.has_retries_due() => {
                    unless_stopped(&stop, async { self.followed.retry().await; Ok(()) }).await
                }
            };
            match done {
                Ok(()) if self.followed.is_whole() => self.redis.ready(),
                Ok(()) => self.redis.not_ready("the views of some partitions do not answer"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "The views could not be brought up to date: {error}");
                    self.redis.not_ready(error);
                    // Whatever it was, it is not over at once.
                    stop.run_until_cancelled(tokio::time::sleep(Duration::from_millis(200))).await;
                }
            }
        }
    }

    async fn compare(&mut self) -> anyhow::Result<()> {
        let heads = self.heads.borrow_and_update().clone();
        self.followed.come_due();
        self.followed.compare(&heads, self.patience).await
    }

    /// A partition that is to be filled, one of ours; of all, if Kafka has given us none. Kafka gives no process one
    /// that the topic lacks, so each may fill it. They take turns, so that one which cannot be filled keeps no other
    /// waiting.
    fn next_to_fill(&self) -> Option<Unfilled> {
        let mut unfilled: Vec<_> = self.followed.unfilled().collect();
        if unfilled.is_empty() {
            return None;
        }
        let ours = self.partitions.assigned();
        let in_topic = self.in_topic.borrow().unwrap_or(u16::MAX);
        unfilled.retain(|Unfilled { partition, .. }| {
            ours.is_empty() || ours.contains(partition) || partition.0 >= in_topic
        });
        unfilled.sort_unstable_by_key(Unfilled::turn);
        let filled = self.filled.as_ref().map(Unfilled::turn);
        let next = unfilled.iter().find(|unfilled| Some(unfilled.turn()) > filled);
        next.or(unfilled.first()).copied()
    }
}

/// Leaves off where it is told to stop: whoever comes next goes on from the watermark.
async fn unless_stopped(
    stop: &CancellationToken,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    stop.run_until_cancelled(work).await.unwrap_or(Ok(()))
}

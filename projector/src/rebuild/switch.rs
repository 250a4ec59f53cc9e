//! The switch of all readers from one generation to another, and the way back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use event_log::{EventLog, GenerationLease, GenerationState, Generations};
use read_model::{VIEW_VERSION, Views};

use crate::metrics;

/// So many events behind the log a generation may be to be switched to: what is on its way at any time.
const MAX_BEHIND: u32 = 1_000;

/// What a switch did.
#[derive(Debug, Clone, Copy)]
pub struct Switched {
    pub from: Option<u32>,
    pub to: u32,
    pub took: Duration,
}

/// By which right a generation is switched to.
#[derive(Debug)]
pub(super) enum To<'a> {
    Built(&'a GenerationLease),
    Kept(u32),
}

/// Has all readers be answered from a generation, in one step.
pub(super) async fn switch(
    generations: &Generations,
    views: &Views,
    to: To<'_>,
    keep: u32,
) -> anyhow::Result<Switched> {
    let begun = Instant::now();
    let from = generations.active(VIEW_VERSION).await?.map(|(number, _)| number);
    let (to, switched) = match to {
        To::Built(lease) => (lease.number, generations.switch(lease, keep).await),
        To::Kept(number) => (number, generations.switch_back(number, keep).await),
    };
    match switched {
        Ok(switched) => ensure!(switched, "generation {to} is not one to switch to"),
        // It may be the answer that was lost.
        Err(error) => match generations.active(VIEW_VERSION).await {
            Ok(Some((active, _))) if active == to => {}
            Ok(_) | Err(_) => return Err(error),
        },
    }
    if let Some((number, turn)) = generations.active(VIEW_VERSION).await?
        // Readers ask Postgres too, a little later.
        && let Err(error) = views.remember_active(number, turn).await
    {
        tracing::warn!("Redis could not be told of the switch: {error}");
    }
    ::metrics::counter!(metrics::SWITCHES).increment(1);
    let took = begun.elapsed();
    tracing::info!(generation = to, "Switched to generation {to} in {took:.1?}");
    Ok(Switched { from, to, took })
}

/// Goes back to the generation that was active before.
pub async fn rollback(
    log: &EventLog,
    generations: &Generations,
    views: &Views,
    keep: u32,
) -> anyhow::Result<Switched> {
    let all = generations.all().await?;
    let kept = all.iter().filter(|generation| {
        generation.view_version == VIEW_VERSION && generation.state == GenerationState::Kept
    });
    let to = kept.max_by_key(|generation| generation.turn).context("no generation is kept")?.number;
    is_current(log, &views.of_generation(to))
        .await
        .with_context(|| format!("generation {to} will not do"))?;
    // At least the one that is left, or there would be no way forth again.
    switch(generations, views, To::Kept(to), keep.max(1)).await
}

/// Whether readers could be answered from these views.
async fn is_current(log: &EventLog, views: &Views) -> anyhow::Result<()> {
    let (marks, heads) = tokio::try_join!(
        async { views.watermarks().await.context("reading the watermarks") },
        log.heads()
    )?;
    for ((partition, mark), head) in log.partitions().all().zip(marks).zip(heads) {
        let mark = mark.with_context(|| format!("partition {partition} has been lost"))?;
        ensure!(mark.unfilled_below.is_none(), "partition {partition} is still being filled");
        let at = mark.point.position;
        if at < head.position {
            let behind = log.count_between(partition, at, head.position, MAX_BEHIND + 1).await?;
            ensure!(behind <= MAX_BEHIND.into(), "partition {partition} is far behind the log");
        }
    }
    Ok(())
}

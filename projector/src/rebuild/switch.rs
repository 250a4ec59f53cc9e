//! The switch of all readers from one generation to another, and the way back.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use event_log::{EventLog, GenerationLease, GenerationState, Generations};
use read_model::{VIEW_VERSION, Views};
use service_runtime::Readiness;

use super::follow::make_current;
use super::pace::Pace;
use crate::halted::Halted;
use crate::metrics;

/// What a switch did, and how long it took with all that had to be looked at before.
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
    let begun = Instant::now();
    let all = generations.all().await?;
    let kept = all.iter().filter(|generation| {
        generation.view_version == VIEW_VERSION && generation.state == GenerationState::Kept
    });
    let to = kept.max_by_key(|generation| generation.turn).context("no generation is kept")?.number;
    let halted = Halted::new(Readiness::new().check("folds"));
    // Somebody waits for this, and wants it at once.
    let mut pace = Pace::new(100);
    make_current(log, &views.of_generation(to), &halted, &mut pace)
        .await
        .with_context(|| format!("generation {to} will not do"))?;
    // At least the one that is left, or there would be no way forth again.
    let switched = switch(generations, views, To::Kept(to), keep.max(1)).await?;
    Ok(Switched { took: begun.elapsed(), ..switched })
}

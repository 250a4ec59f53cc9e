//! What a projector does for the generations beside following them: it has Redis remember which is active,
//! builds one where its version of the views has none, and removes those that were given up.

use std::time::Duration;

use event_log::{Generation, GenerationState};
use read_model::VIEW_VERSION;
use service_runtime::{Check, progress};
use tokio_util::sync::CancellationToken;

use super::{Progress, Rebuild, removal};
use crate::metrics;

const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    pub rebuild: Rebuild,
    /// Whether there is a generation of our version, so that readers of it can be answered.
    pub check: Check,
}

impl Keeper {
    /// Looks after the generations.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(LOOK_AGAIN);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            progress::tick();
            if let Some(Err(error)) = stop.run_until_cancelled(self.look(&stop)).await {
                tracing::debug!("The generations could not be looked after: {error:#}");
            }
        }
        Ok(())
    }

    async fn look(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let Rebuild { generations, views, .. } = &self.rebuild;
        match generations.active(VIEW_VERSION).await? {
            Some((number, turn)) => {
                self.check.ready();
                // Redis may have been emptied, or was away at the switch.
                views.switch_to(number);
                progress::tick();
                views.remember_active(number, turn).await?;
            }
            // It takes as long as it takes, and the check says so meanwhile.
            None => progress::idle(self.build()).await,
        }
        progress::tick();
        removal::remove_one(generations, views, stop).await
    }

    /// Builds the first generation of our version, while the program before us serves from its own.
    async fn build(&self) {
        self.check.not_ready(format!("version {VIEW_VERSION} of the views is being built"));
        match self.rebuild.run_first().await {
            Ok(Some(built)) => {
                let generation = built.generation;
                tracing::info!(
                    generation,
                    "Version {VIEW_VERSION} of the views is there: generation {generation}"
                );
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(
                    "Version {VIEW_VERSION} of the views could not be built: {error:#}"
                );
            }
        }
    }

    /// Shows which generations there are, whoever builds them.
    pub(crate) async fn watch(self, stop: CancellationToken) -> anyhow::Result<()> {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_some() {
            progress::tick();
            let all = stop.run_until_cancelled(self.rebuild.generations.all()).await;
            let Some(Ok(mut all)) = all else { continue };
            all.retain(|one| one.view_version == VIEW_VERSION);
            show(&all);
        }
        Ok(())
    }

    /// Shows how the filling of what Redis has lost goes on, as a rebuild does.
    pub(crate) async fn watch_filling(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut shown: Option<(Progress, u64)> = None;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await.is_some() {
            progress::tick();
            let marks = stop.run_until_cancelled(self.rebuild.views.watermarks()).await;
            let Some(Ok(marks)) = marks else { continue };
            let below = marks.iter().flatten().filter_map(|mark| mark.unfilled_below);
            // Each partition has its share of the positions.
            let left = below.map(|below| below.0).sum::<u64>() / marks.len().max(1) as u64;
            match &shown {
                None if left == 0 => {}
                // What is written meanwhile is not to be filled. More may be lost.
                Some((filling, total)) if left > 0 && left <= *total => {
                    filling.observe(total - left);
                }
                Some((filling, _)) if left == 0 => {
                    filling.end();
                    shown = None;
                }
                None | Some(_) => {
                    let filling = Progress::new("filling");
                    filling.expect(left, 0);
                    filling.observe(0);
                    shown = Some((filling, left));
                }
            }
        }
        Ok(())
    }
}

/// Tells how many generations of our version there are, and how far the newest has come.
fn show(ours: &[Generation]) {
    for state in GenerationState::ALL {
        let count = ours.iter().filter(|one| one.state == state).count();
        ::metrics::gauge!(metrics::GENERATIONS, "state" => state.to_string()).set(count as f64);
    }
    let newest = ours.iter().rfind(|one| one.state != GenerationState::Abandoned);
    let Some(newest) = newest else { return };
    ::metrics::gauge!(metrics::REBUILD_PARTS_DONE).set(newest.parts_done);
    ::metrics::gauge!(metrics::REBUILD_PARTS_EXPECTED).set(newest.parts);
    let work = "rebuild";
    ::metrics::gauge!(metrics::REBUILD_DONE, "work" => work).set(newest.events_done as f64);
    ::metrics::gauge!(metrics::REBUILD_EXPECTED, "work" => work).set(newest.head.0 as f64);
}

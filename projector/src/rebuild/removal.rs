//! The removal of generations that nobody needs any more, a little at a time.

use std::time::Duration;

use event_log::{GenerationLease, Generations};
use read_model::{Removal, Views};
use service_runtime::progress;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::{LEASE, holder, keep};

/// How long after a generation was given up everybody has noticed, so that nobody writes it again.
const NOTICED: Duration = Duration::from_secs(10);
/// Redis has better things to do.
const SHARE: u8 = 20;

/// Removes one generation that was given up, if there is any.
pub(super) async fn remove_one(
    generations: &Generations,
    views: &Views,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(lease) = generations.take_abandoned(NOTICED, &holder(), LEASE).await? else {
        return Ok(());
    };
    let number = lease.number;
    tracing::info!(generation = number, "Removing generation {number}");
    if stop.run_until_cancelled(remove(generations, views, &lease)).await.transpose()?.is_some() {
        tracing::info!(generation = number, "Generation {number} is removed");
    }
    Ok(())
}

async fn remove(
    generations: &Generations,
    views: &Views,
    lease: &GenerationLease,
) -> anyhow::Result<()> {
    let views = views.of_generation(lease.number);
    let steps = async {
        let mut pace = Pace::new(SHARE);
        let mut removal = Removal::default();
        while !views.remove_some(&mut removal).await? {
            progress::tick();
            pace.rest().await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        removed = steps => removed?,
        // Whoever has taken it over goes on where there is something left.
        lost = keep(generations, lease, || None) => return lost,
    }
    generations.forget(lease).await
}

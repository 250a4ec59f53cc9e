//! The second part of a rebuild: from the position it was folded as of to where the log is now. A generation that
//! readers go back to is brought there in the same way.

use std::time::Duration;

use anyhow::{Context, ensure};
use domain::Point;
use event_log::EventLog;
use read_model::Views;

use super::pace::Pace;
use crate::apply::Projection;
use crate::halted::Halted;

/// So many events behind the head count as there: more are written all the time.
const NEARLY: u64 = 200;
/// A partition that stands still however often it is caught up is told of, not waited for.
const ROUNDS: u32 = 1000;
/// How long we wait where nothing moves.
const STILL: Duration = Duration::from_millis(100);

/// Applies what the log holds above the watermarks, until they are where the heads were when we began the last
/// round, which are returned, and are nearly there now.
pub(super) async fn catch_up(
    log: &EventLog,
    views: &Views,
    halted: &Halted,
    pace: &mut Pace,
) -> anyhow::Result<Vec<Point>> {
    let mut projection = Projection::new(log.clone(), views.clone(), halted.clone());
    for _ in 0..ROUNDS {
        let heads = log.heads().await?;
        projection.look_up_watermarks().await?;
        let (mut behind, mut moved) = (0, false);
        for (partition, head) in log.partitions().all().zip(&heads) {
            let mark = projection.watermarks.get(&partition);
            let mark = mark.with_context(|| format!("partition {partition} was lost"))?;
            let at = mark.point.position;
            if at >= head.position {
                continue;
            }
            let missing = u32::try_from(NEARLY + 1).unwrap_or(u32::MAX);
            behind += log.count_between(partition, at, head.position, missing).await?;
            while projection.come_closer(partition, head.position).await? {
                moved = true;
                pace.rest().await;
            }
        }
        if behind <= NEARLY {
            return Ok(heads);
        }
        if !moved {
            tokio::time::sleep(STILL).await;
        }
    }
    anyhow::bail!("it does not come up with the log, to which too much is being written")
}

/// Brings views to where the log is, and demands that every partition be there and whole: readers are switched to
/// nothing less.
pub(super) async fn make_current(
    log: &EventLog,
    views: &Views,
    halted: &Halted,
    pace: &mut Pace,
) -> anyhow::Result<()> {
    let heads = catch_up(log, views, halted, pace).await?;
    let (marks, incarnation) = tokio::try_join!(
        async { views.watermarks().await.context("reading the watermarks") },
        log.incarnation()
    )?;
    for ((partition, mark), head) in log.partitions().all().zip(marks).zip(heads) {
        let mark = mark.with_context(|| format!("partition {partition} was lost"))?;
        ensure!(mark.unfilled_below.is_none(), "partition {partition} is still being filled");
        let is_ours = mark.incarnation == incarnation && mark.is_of_this_version();
        ensure!(is_ours, "partition {partition} is of another incarnation or version");
        let (at, head) = (mark.point.position, head.position);
        ensure!(at >= head, "partition {partition} stands still at {at}, its log is at {head}");
    }
    Ok(())
}

//! The second part of a rebuild: from the position it was folded as of to where the log is now. A generation that
//! readers go back to is brought there in the same way.

use std::time::Duration;

use anyhow::{Context, ensure};
use domain::Point;
use event_log::EventLog;
use read_model::Views;

use super::Progress;
use super::pace::Pace;
use crate::apply::Projection;
use crate::halted::Halted;

/// Where no partition lacks more events than this, projectors can take over. One that lacks ten times as many they
/// would begin anew.
const NEAR: u64 = 1000;
/// So many are counted at most.
const FAR: u32 = 1_000_000;
/// A partition that stands still however often it is caught up is told of, not waited for.
const ROUNDS: u32 = 1000;
/// How long we wait where nothing moves.
const STILL: Duration = Duration::from_millis(100);

/// Applies what the log holds above the watermarks, until no partition is far from its head: events are written all the
/// time, and this is one worker that has to rest.
pub(super) async fn catch_up(
    log: &EventLog,
    views: &Views,
    halted: &Halted,
    pace: &mut Pace,
) -> anyhow::Result<()> {
    let mut projection = Projection::new(log.clone(), views.clone(), halted.clone());
    let progress = Progress::new("catch-up");
    let (mut expected, mut farthest) = (0, (0, None));
    for _ in 0..ROUNDS {
        let heads = look_again(&mut projection).await?;
        farthest = (0, None);
        for (partition, head) in log.partitions().all().zip(&heads) {
            let mark = projection.watermarks.get(&partition);
            let mark = mark.with_context(|| format!("partition {partition} was lost"))?;
            let at = mark.point.position;
            let missing = log.count_between(partition, at, head.position, FAR).await?;
            expected += missing;
            farthest = farthest.max((missing, Some(partition)));
        }
        progress.expect(expected, 0);
        let told = |events| progress.add(events);
        let moved = apply_up_to(&mut projection, &heads, pace, told).await?;
        if farthest.0 <= NEAR {
            progress.end();
            return Ok(());
        }
        if !moved {
            tokio::time::sleep(STILL).await;
        }
    }
    let (missing, partition) = farthest;
    let partition = partition.map_or_else(String::new, |partition| partition.to_string());
    anyhow::bail!(
        "partition {partition} stays {missing} events behind its log: it stands still, or too much is being written"
    )
}

/// Where the log is now, and where the views are. What did not answer before may do so again.
async fn look_again(projection: &mut Projection) -> anyhow::Result<Vec<Point>> {
    let heads = projection.log.heads().await?;
    projection.away.clear();
    projection.look_up_watermarks().await?;
    Ok(heads)
}

/// Applies what the log holds up to these heads. Tells whether anything has moved.
async fn apply_up_to(
    projection: &mut Projection,
    heads: &[Point],
    pace: &mut Pace,
    told: impl Fn(u64),
) -> anyhow::Result<bool> {
    let mut moved = false;
    for (partition, head) in projection.log.partitions().all().zip(heads) {
        loop {
            let applied = projection.come_closer(partition, head.position).await?;
            if applied == 0 {
                break;
            }
            moved = true;
            told(applied);
            pace.rest().await;
        }
    }
    Ok(moved)
}

/// Brings views to where the log is, and demands that every partition be there and whole: readers are switched to
/// nothing less.
pub(super) async fn make_current(
    log: &EventLog,
    views: &Views,
    halted: &Halted,
    pace: &mut Pace,
) -> anyhow::Result<()> {
    let mut projection = Projection::new(log.clone(), views.clone(), halted.clone());
    let heads = look_again(&mut projection).await?;
    apply_up_to(&mut projection, &heads, pace, |_| {}).await?;
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

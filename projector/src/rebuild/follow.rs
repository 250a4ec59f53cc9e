//! The second part of a rebuild: from the position it was folded as of to where the log is now.

use anyhow::Context;
use read_model::Views;

use super::Rebuild;
use crate::apply::Projection;

/// So many events behind the head count as there: more are written all the time.
const NEARLY: u64 = 200;
/// A partition that stands still however often it is caught up is told of, not waited for.
const ROUNDS: u32 = 1000;

impl Rebuild {
    /// Applies what the log holds above the watermarks, until they are where the head was when we began the last
    /// round, or nearly.
    pub(super) async fn catch_up(&self, views: &Views) -> anyhow::Result<()> {
        let mut projection = Projection::new(self.log.clone(), views.clone(), self.halted.clone());
        for _ in 0..ROUNDS {
            let heads = self.log.heads().await?;
            projection.look_up_watermarks().await?;
            let mut behind = 0;
            for (partition, head) in self.log.partitions().all().zip(&heads) {
                let mark = projection.watermarks.get(&partition);
                let at = mark.context("a partition was lost")?.point.position;
                let missing = u32::try_from(NEARLY + 1).unwrap_or(u32::MAX);
                behind += self.log.count_between(partition, at, head.position, missing).await?;
                projection.catch_up(partition, head.position).await?;
            }
            if behind <= NEARLY {
                return Ok(());
            }
        }
        anyhow::bail!("it does not come up with the log, to which too much is being written")
    }
}

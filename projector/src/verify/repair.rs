//! Pages folded anew because what lay in Redis was wrong.

use std::time::Duration;

use anyhow::Context;
use domain::PostId;
use read_model::{Fill, Flag, Guarded};

use super::closely::Folded;
use super::{Verifier, is_usable};

/// How often a page is folded anew because its partition had moved on before it arrived.
const ATTEMPTS: u32 = 20;

impl Verifier {
    /// Folds a page anew and puts it in the place of what is there. `false`: it could not be.
    pub(super) async fn fold_anew(&self, id: PostId) -> anyhow::Result<bool> {
        for attempt in 0..ATTEMPTS {
            // Less often where much is written.
            tokio::time::sleep(Duration::from_millis(5) * attempt).await;
            let as_of = self.log.head().await?;
            let row = match self.page(id, as_of).await? {
                Folded::Row(row) => *row,
                Folded::Unreadable => {
                    return Ok(not_repaired(id, "one of its events cannot be read"));
                }
                Folded::Unknown => return Ok(not_repaired(id, "the log does not know it")),
            };
            let partition = self.views.partition_of(id);
            let marks = self.views.watermarks().await.context("reading the watermarks")?;
            let mark = marks.into_iter().nth(partition.0.into()).flatten();
            // What another version has written is not ours to replace.
            let Some(mark) = mark.filter(is_usable) else {
                return Ok(not_repaired(id, "its partition has no watermark of this version"));
            };
            let fill = Fill {
                partition,
                incarnation: mark.incarnation,
                epoch: mark.epoch,
                as_of,
                rows: vec![(id, row)],
                unfilled_below: None,
                // As of here all of it can be folded.
                flags: vec![(id, Flag::Released)],
            };
            let answers = self.views.repair_all(&[fill]).await.context("repairing a page")?;
            if answers == [Guarded::Written] {
                tracing::warn!(post.id = %id, "Page {id} was not what the log makes of it, and has been folded anew");
                return Ok(true);
            }
        }
        Ok(not_repaired(id, "events of its partition came faster than it could be folded"))
    }
}

fn not_repaired(id: PostId, why: &str) -> bool {
    tracing::error!(post.id = %id, "Page {id} is not what the log makes of it, and could not be folded anew: {why}");
    false
}

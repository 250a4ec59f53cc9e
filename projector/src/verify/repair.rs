//! Pages folded anew because what lay in Redis was wrong.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use domain::{Partition, Position, PostId};
use read_model::{Fill, Guarded};

use super::Verifier;

/// How often a page is folded anew because its partition had moved on before it arrived.
const ATTEMPTS: u32 = 20;

impl Verifier {
    /// Folds these pages anew and puts them in the place of what is there. Returns how many it could.
    pub(super) async fn repair(&self, ids: &[PostId]) -> anyhow::Result<u64> {
        let mut left = ids.to_vec();
        let mut repaired = 0;
        for attempt in 0..ATTEMPTS {
            if left.is_empty() {
                break;
            }
            // Less often where much is written.
            tokio::time::sleep(Duration::from_millis(5) * attempt).await;
            let folded = self.fold(&left, |_| Position(u64::MAX)).await?;
            let marks = self.views.watermarks().await.context("reading the watermarks")?;
            let mut fills: HashMap<Partition, Fill> = HashMap::new();
            for (id, row) in folded.rows {
                if folded.unreadable.contains(&id) {
                    continue;
                }
                let partition = self.views.partition_of(id);
                let mark = marks.get(usize::from(partition.0)).and_then(Option::as_ref);
                // What another version has written is not ours to replace.
                let Some(mark) = mark.filter(|mark| mark.is_of_this_version()) else { continue };
                let fill = fills.entry(partition).or_insert_with(|| Fill {
                    partition,
                    incarnation: mark.incarnation,
                    epoch: mark.epoch.clone(),
                    as_of: folded.as_of,
                    rows: vec![],
                    unfilled_below: None,
                    flags: vec![],
                });
                fill.rows.push((id, row));
            }
            let fills: Vec<Fill> = fills.into_values().collect();
            let answers = self.views.repair_all(&fills).await.context("repairing pages")?;
            left.clear();
            for (fill, answer) in fills.iter().zip(answers) {
                match answer {
                    Guarded::Written => repaired += fill.rows.len() as u64,
                    Guarded::Refused(_) => left.extend(fill.rows.iter().map(|(id, _)| *id)),
                }
            }
        }
        for id in ids.iter().filter(|id| !left.contains(id)) {
            tracing::warn!(post.id = %id, "Page {id} was not what the log makes of it, and has been folded anew");
        }
        Ok(repaired)
    }
}

//! How far the partitions have come, in the end.

use std::time::{Duration, Instant};

use anyhow::Context;
use domain::Point;
use read_model::{Difference, Watermark};

use super::{Found, Report, Verifier, is_usable};

/// How long the views have for what is on its way.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Verifier {
    /// Whether every partition comes, in a while, to where the log was at the beginning.
    pub(super) async fn standstill(
        &self,
        heads: &[Point],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let incarnation = self.log.incarnation().await?;
            let marks = self.views.watermarks().await.context("reading the watermarks")?;
            let (mut behind, mut lost) = (vec![], vec![]);
            for ((partition, mark), head) in self.log.partitions().all().zip(marks).zip(heads) {
                let of_this_life = |mark: &&Watermark| mark.incarnation == incarnation;
                let Some(at) = mark.as_ref().filter(of_this_life).filter(|mark| is_usable(mark))
                else {
                    // Where that has been noted, nothing is to be waited for.
                    if !report.lost.contains(&partition) {
                        lost.push((partition, mark));
                    }
                    continue;
                };
                let at = at.point.position;
                if at < head.position {
                    let difference = Difference {
                        key: format!("partition {partition}"),
                        field: "watermark".to_owned(),
                        found: Some(at.to_string()),
                        expected: Some(head.position.to_string()),
                    };
                    let log = head.position;
                    behind.push(Found { difference, post_id: None, views: at, log });
                }
            }
            if (behind.is_empty() && lost.is_empty()) || Instant::now() > deadline {
                for found in behind {
                    self.found(found, report)?;
                }
                for (partition, mark) in lost {
                    self.lost(partition, mark.as_ref(), report)?;
                }
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

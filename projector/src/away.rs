//! Partitions that do not answer while others do: those of one node of a cluster, or on their way to another.

use std::collections::BTreeSet;

use anyhow::Context;
use domain::Partition;
use read_model::ViewsError;

use crate::apply::Projection;

impl Projection {
    /// Asks where the views stand. A partition that does not say is away, unless none does.
    pub(crate) async fn look_up_watermarks(&mut self) -> anyhow::Result<()> {
        let found = self.views.watermarks_that_answer().await;
        let mut silent = BTreeSet::new();
        let mut why = None;
        for (partition, found) in self.log.partitions().all().zip(found) {
            match found {
                Ok(Some(watermark)) => {
                    self.watermarks.insert(partition, watermark);
                }
                Ok(None) => {
                    self.watermarks.remove(&partition);
                }
                Err(error) => {
                    silent.insert(partition);
                    why = Some(error);
                }
            }
        }
        match why {
            Some(error) if silent.len() == usize::from(self.log.partitions().count()) => {
                Err(error).context("reading the watermarks")
            }
            _ => {
                self.away.extend(silent);
                Ok(())
            }
        }
    }

    /// Goes on without partitions whose views could not be written, if any can be read.
    pub(crate) async fn leave_out(
        &mut self,
        failed: Vec<(Partition, ViewsError)>,
    ) -> anyhow::Result<()> {
        self.look_up_watermarks().await?;
        for (partition, error) in failed {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(partition = %partition, error, "Partition {partition} waits: {error}");
            self.away.insert(partition);
        }
        Ok(())
    }
}

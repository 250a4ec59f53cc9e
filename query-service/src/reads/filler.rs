//! Offers to Redis what was folded from the log, behind the reader's back: the reader has been answered,
//! and nobody minds if a row is not taken.

use std::collections::HashMap;
use std::sync::Arc;

use domain::{Claim, Partition, PostId, Slug};
use read_model::{Fill, Guarded, Row, Watermark};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::log::{Folded, Log};
use super::warm::Warm;

/// How many offers may be under way. Beyond that they are dropped: the next reader will make them again.
const MAX_OFFERS: usize = 64;

/// How often a row is folded anew because its partition had moved on before it arrived.
const MAX_REFOLDS: u32 = 3;

#[derive(Debug, Clone)]
pub(crate) struct Filler {
    warm: Warm,
    log: Log,
    offers: Arc<Semaphore>,
}

impl Filler {
    pub(crate) fn new(warm: Warm, log: Log) -> Self {
        Self { warm, log, offers: Arc::new(Semaphore::new(MAX_OFFERS)) }
    }

    /// Offers rows to those partitions that have a watermark. One without is the projector's to begin.
    pub(crate) fn offer(&self, folded: Folded, marks: &HashMap<Partition, Watermark>) {
        let mut fills: HashMap<Partition, Fill> = HashMap::new();
        for (id, row) in folded.rows {
            // A row that stands before an event of its post is the projector's to set aside.
            if folded.unreadable.contains(&id) {
                continue;
            }
            let partition = self.warm.views.partition_of(id);
            let Some(mark) = marks.get(&partition) else { continue };
            // Of another life than the log was read in: whether these rows belong there, nobody knows.
            if mark.incarnation != folded.incarnation {
                continue;
            }
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
        for fill in fills.into_values() {
            let filler = self.clone();
            self.in_background(async move {
                let outcome = filler.fill(fill).await;
                metrics::counter!("fills_total", "outcome" => outcome).increment(1);
            });
        }
    }

    /// Remembers which post a slug names.
    pub(crate) fn remember(&self, incarnation: u32, slug: Slug, claim: Claim) {
        let warm = self.warm.clone();
        self.in_background(async move {
            // If it is not remembered, the next reader asks the log again.
            let _ = warm.offer(warm.views.remember_slug(incarnation, &slug, claim)).await;
        });
    }

    async fn fill(&self, mut fill: Fill) -> &'static str {
        let ids: Vec<PostId> = fill.rows.iter().map(|(id, _)| *id).collect();
        let mut refolds = 0..MAX_REFOLDS;
        loop {
            match self.warm.offer(self.warm.views.fill(&fill)).await {
                None => return "failed",
                Some(Guarded::Written) => return "written",
                Some(Guarded::Refused(None)) => return "no_watermark",
                Some(Guarded::Refused(Some(found))) => {
                    if refolds.next().is_none() {
                        return "refused";
                    }
                    let Ok(folded) = self.log.fold(&ids).await else { return "failed" };
                    if found.incarnation != folded.incarnation {
                        return "refused";
                    }
                    let unreadable = folded.unreadable;
                    let rows = folded.rows.into_iter().filter(|(id, _)| !unreadable.contains(id));
                    let rows: Vec<(PostId, Row)> = rows.collect();
                    let (incarnation, epoch) = (found.incarnation, found.epoch);
                    fill = Fill { incarnation, epoch, as_of: folded.as_of, rows, ..fill };
                }
            }
        }
    }

    fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(permit) = self.offers.clone().try_acquire_owned() else {
            metrics::counter!("fills_total", "outcome" => "dropped").increment(1);
            return;
        };
        let work = async move {
            work.await;
            drop(permit);
        };
        tokio::spawn(work.in_current_span());
    }
}

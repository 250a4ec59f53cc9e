//! New beginnings of partitions whose views were lost, or cannot be trusted.

use domain::{Partition, Point, Position};

use crate::guard::Watermark;
use crate::writing::{Guarded, guarded};
use crate::{Views, ViewsError};

/// A new beginning for a partition whose views were lost, or cannot be trusted.
#[derive(Debug)]
pub struct NewEpoch {
    pub partition: Partition,
    pub incarnation: u32,
    /// Made up by the caller, never used before.
    pub epoch: String,
    /// The last event of the partition.
    pub head: Point,
    /// What was there before.
    pub found: Option<Watermark>,
}

impl Views {
    /// Begins a new epoch of a partition at the head of its log, unless its watermark is no more the one
    /// that was found.
    pub async fn begin_epoch(&self, new: &NewEpoch) -> Result<Guarded, ViewsError> {
        let keys = self.keys();
        let (found_epoch, found_position) =
            new.found.as_ref().map_or_else(Default::default, |found| {
                (found.epoch.clone(), found.point.position.to_string())
            });
        let unfilled_below = match new.head.position {
            Position::ZERO => String::new(),
            Position(head) => (head + 1).to_string(),
        };
        let mark = keys.watermark(new.partition);
        let mut exchange = self.connection.exchange();
        let mut call = self.new_epoch.prepare_invoke();
        call.key(&mark)
            .key(keys.listed(new.partition))
            .key(keys.lists(new.partition))
            .key(keys.quarantined(new.partition))
            .key(keys.never(new.partition))
            .arg(found_epoch)
            .arg(found_position)
            .arg(new.incarnation)
            .arg(&new.epoch)
            .arg(new.head.position.0)
            .arg(new.head.event_id.to_string())
            .arg(unfilled_below)
            .arg(keys.list_prefix(new.partition));
        exchange.call(&mark, &self.new_epoch, &call);
        let [answer] = exchange.send().await.next()?;
        guarded(answer)
    }
}

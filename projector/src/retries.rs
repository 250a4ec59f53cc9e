//! Pages that were set aside before this process started, each tried once more: this program may be the one
//! that can read them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::Context;
use domain::{Position, PostId};
use event_log::{EventLog, State};
use read_model::Views;

use crate::pages::{Refolded, refold};

/// How many are tried; the others wait for `projector quarantine retry --all`.
const MOST: u32 = 1000;
/// How long one may take, while events from Kafka wait.
const LIMIT: Duration = Duration::from_secs(2);

/// What is still to be tried.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    /// `None` before the record has been read.
    pages: Option<VecDeque<(PostId, Position)>>,
    /// How many of them are tried before the next pause.
    due: usize,
}

impl Retries {
    /// Lets what is left be tried again, now that a second has gone by.
    pub(crate) fn come_due(&mut self) {
        self.due = self.pages.as_ref().map_or(1, VecDeque::len);
    }

    pub(crate) fn are_due(&self) -> bool {
        self.due > 0
    }

    /// Tries the next one. Where a server does not help, it is left for later; no hurry then.
    pub(crate) async fn next(&mut self, log: &EventLog, views: &Views) {
        self.due = self.due.saturating_sub(1);
        let Some(pages) = &mut self.pages else {
            match tokio::time::timeout(LIMIT, set_aside(log, views)).await {
                Ok(Ok(pages)) => self.pages = Some(pages.into()),
                Ok(Err(error)) => tracing::debug!("The quarantine cannot be read: {error:#}"),
                Err(_) => tracing::debug!("The quarantine cannot be read in time"),
            }
            return;
        };
        let Some((id, noted)) = pages.pop_front() else { return };
        match tokio::time::timeout(LIMIT, refold(log, views, id, noted)).await {
            Ok(Ok(Refolded::Released)) => {
                tracing::info!(post.id = %id, "Post {id} can be read now, and is set aside no more");
            }
            Ok(Ok(Refolded::StillQuarantined(end))) => {
                let (position, reason) = (end.position, end.reason);
                tracing::warn!(post.id = %id, %position, "Post {id} stays set aside: {reason}");
            }
            Ok(Ok(Refolded::NotYet)) => pages.push_back((id, noted)),
            Ok(Err(error)) => {
                tracing::warn!(post.id = %id, "Post {id} could not be folded anew: {error:#}");
                pages.push_back((id, noted));
                self.due = 0;
            }
            Err(_) => {
                pages.push_back((id, noted));
                self.due = 0;
            }
        }
    }
}

/// What is set aside, on record or only by a flag, with the last event on account of which it is.
pub(crate) async fn set_aside(
    log: &EventLog,
    views: &Views,
) -> anyhow::Result<Vec<(PostId, Position)>> {
    let mut pages: BTreeMap<PostId, Position> = BTreeMap::new();
    let mut add = |id, position| {
        let last = pages.entry(id).or_insert(position);
        *last = position.max(*last);
    };
    for entry in log.on_record(MOST).await? {
        if let (State::Quarantined, Ok(id)) = (entry.state, entry.stream_id.parse()) {
            add(id, entry.position);
        }
    }
    for partition in log.partitions().all() {
        let flags = views.quarantined(partition).await.context("reading the flags")?;
        flags.into_iter().for_each(|(id, position)| add(id, position));
    }
    Ok(pages.into_iter().collect())
}

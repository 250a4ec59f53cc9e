//! Listens to what the projector changes, for as long as the process runs.

use std::time::Duration;

use read_model::{Announcements, Change, Heard, Visibility};
use service_runtime::progress;
use tokio_util::sync::CancellationToken;

use super::PageCache;

/// How long after a connection broke the next one is tried, at first and at most.
const PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Ends what is kept of posts that have changed.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) memory: PageCache,
    pub(crate) announcements: Announcements,
}

impl Listener {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let moments = &self.memory.inner.moments;
        let mut pause = PAUSE;
        loop {
            progress::tick();
            let mut connected = false;
            let tell = |news| match news {
                Heard::Beginning => {
                    moments.end_all();
                    moments.hear();
                    connected = true;
                    metrics::counter!("memory_connections_total").increment(1);
                }
                Heard::Change(change) => {
                    self.memory.hear(&change);
                    metrics::counter!("memory_announcements_total").increment(1);
                }
            };
            let listening = self.announcements.hear(tell, progress::tick);
            let Some(why) = stop.run_until_cancelled(listening).await else { return Ok(()) };
            if moments.are_heard() {
                tracing::warn!("Changes are not heard of, so pages are kept for a second: {why}");
            }
            moments.hear_nothing();
            pause = if connected { PAUSE } else { MAX_PAUSE.min(pause * 2) };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }
}

impl PageCache {
    /// Ends what is kept of a post that has changed. If the post was withdrawn, not even a copy stays.
    pub(super) fn hear(&self, change: &Change) {
        let Change { post_id, visibility, slugs } = change;
        self.inner.moments.end(*post_id, slugs);
        match *visibility {
            Visibility::Withdrawn(at) => self.withdraw(*post_id, at),
            Visibility::Published(at) => {
                self.inner.withdrawn.admits(*post_id, at);
            }
            Visibility::Unpublished(_) | Visibility::Unknown => {}
        }
    }
}

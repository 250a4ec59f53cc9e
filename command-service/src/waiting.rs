//! `Prefer: wait=<seconds>`: an answer that comes once the views have the command's events.
//!
//! One task looks at the watermarks for all who wait, and only while somebody does.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use domain::{Partition, Position};
use read_model::{Views, Watermark};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// The longest a client may ask to wait.
pub const MAX_WAIT: Duration = Duration::from_secs(10);
/// How many may wait at the same time. Others are answered at once.
const MAX_WAITERS: usize = 10_000;
/// How often the watermarks are looked at.
const PAUSE: Duration = Duration::from_millis(5);

/// Where handlers wait. Clones wait together.
#[derive(Debug, Clone)]
pub struct Waiting {
    seen: watch::Receiver<Vec<Option<Watermark>>>,
    somebody: Arc<Notify>,
    room: Arc<Semaphore>,
}

/// Looks at the watermarks.
#[derive(Debug)]
pub struct WatchTask {
    views: Views,
    seen: watch::Sender<Vec<Option<Watermark>>>,
    somebody: Arc<Notify>,
    room: Arc<Semaphore>,
}

/// Where to wait, and the task behind it.
pub fn waiting(views: Views) -> (Waiting, WatchTask) {
    let (sender, seen) = watch::channel(Vec::new());
    let (somebody, room) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(MAX_WAITERS)));
    let waiting = Waiting { seen, somebody: Arc::clone(&somebody), room: Arc::clone(&room) };
    (waiting, WatchTask { views, seen: sender, somebody, room })
}

impl Waiting {
    /// Waits until the views of a partition have reached a position given in this life of the store; `false`
    /// after that time, or if too many are waiting already.
    pub async fn reached(
        &self,
        incarnation: u32,
        partition: Partition,
        position: Position,
        limit: Duration,
    ) -> bool {
        let Ok(_room) = self.room.try_acquire() else { return false };
        self.somebody.notify_one();
        let mut seen = self.seen.clone();
        let reached = seen.wait_for(|marks| {
            let mark = marks.get(usize::from(partition.0)).and_then(Option::as_ref);
            let theirs = mark.filter(|mark| mark.incarnation >= incarnation);
            theirs.is_some_and(|mark| mark.point.position >= position)
        });
        matches!(tokio::time::timeout(limit, reached).await, Ok(Ok(_)))
    }
}

impl WatchTask {
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            if self.room.available_permits() == MAX_WAITERS {
                // What was seen before this pause says nothing of the views as they are.
                self.seen.send_replace(Vec::new());
                if stop.run_until_cancelled(self.somebody.notified()).await.is_none() {
                    return Ok(());
                }
            }
            // Those who wait while Redis does not answer wait in vain, which is what they are told.
            if let Some(Ok(marks)) = stop.run_until_cancelled(self.views.watermarks()).await {
                self.seen.send_replace(marks);
            }
            if stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return Ok(());
            }
        }
    }
}

/// How long a request wants to wait (RFC 7240): whole seconds, of which it gets at most [`MAX_WAIT`]. What
/// cannot be read is no preference.
pub(crate) fn preferred(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split(','));
    let wait = preferences.filter_map(|preference| {
        let preference = preference.split(';').next()?;
        let (name, seconds) = preference.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds))
    });
    // The first one counts.
    wait.take(1).next().map(|wait| wait.min(MAX_WAIT)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_read_where_there_is_one() {
        let read = |values: &[&str]| {
            let pair = |value: &&str| ("prefer".parse().unwrap(), value.parse().unwrap());
            preferred(&values.iter().map(pair).collect::<HeaderMap>())
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for good in
            ["wait=2", "respond-async, wait=2", "Wait = 2; x=y", "wait=\"2\"", "wait=2, wait=3"]
        {
            assert_eq!(read(&[good]), seconds(2), "{good}");
        }
        assert_eq!(read(&["respond-async", "wait=2"]), seconds(2));
        assert_eq!(read(&["wait=3600"]), seconds(10));
        for none in ["", "wait", "wait=", "wait=-1", "wait=x", "wait=0", "waiting=2"] {
            assert_eq!(read(&[none]), None, "{none}");
        }
    }
}

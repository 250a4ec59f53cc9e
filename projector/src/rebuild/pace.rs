//! How much of the time is worked: what a rebuild leaves of Postgres and Redis to everybody else.

use std::time::{Duration, Instant};

/// A worker that rests after each piece of work in proportion to how long it took: on a system under load pieces take
/// longer, and so do the rests.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How much of the time it works at most, in percent.
    share: u8,
    since: Instant,
}

/// How long to rest after so much work, to work at most this percentage of the time.
pub(crate) fn rest_after(worked: Duration, share: u8) -> Duration {
    let share = f64::from(share.clamp(1, 100)) / 100.0;
    worked.mul_f64((1.0 - share) / share)
}

impl Pace {
    /// Works at most this percentage of the time.
    pub(crate) fn new(share: u8) -> Self {
        Self { share, since: Instant::now() }
    }

    /// Begins to work. What was done before was no work, or not ours.
    pub(crate) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// Rests from what was done since the last rest, however long that takes: a share is kept most of all when pieces
    /// take long.
    pub(crate) async fn rest(&mut self) {
        let rest = rest_after(self.since.elapsed(), self.share);
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        self.since = Instant::now();
    }
}

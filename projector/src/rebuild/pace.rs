//! How much of the time is worked: what a rebuild or a verification leaves of Postgres and Redis to everybody else.

use std::time::Instant;

use service_runtime::progress;

/// A worker that rests after each piece of work in proportion to how long it took: on a system under load pieces take
/// longer, and so do the rests.
#[derive(Debug)]
pub(crate) struct Pace {
    /// For each second of work.
    rest: f64,
    since: Instant,
}

impl Pace {
    /// Works at most this percentage of the time.
    pub(crate) fn new(share: u8) -> Self {
        let share = f64::from(share.clamp(1, 100)) / 100.0;
        Self { rest: (1.0 - share) / share, since: Instant::now() }
    }

    /// Begins to work. What was done before was no work, or not ours.
    pub(crate) fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// Rests from what was done since the last rest, however long that takes: a share is kept most of all when pieces
    /// take long.
    pub(crate) async fn rest(&mut self) {
        let rest = self.since.elapsed().mul_f64(self.rest);
        if !rest.is_zero() {
            progress::idle(tokio::time::sleep(rest)).await;
        }
        self.since = Instant::now();
    }
}

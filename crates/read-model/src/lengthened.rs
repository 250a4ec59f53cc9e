//! Whose lifetime in Redis was lengthened lately, so that not every read has to do it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::PostId;

/// A lifetime is lengthened by this process once in such a time. It is a week, so nothing is lost by that.
const PAUSE: Duration = Duration::from_secs(3600);

/// Two posts that fall into one of so many places take turns, which costs no more than it did without this.
const PLACES: usize = 8192;

pub(crate) struct Lengthened {
    begun: Instant,
    /// In each place the post that was last there, mixed with the hour.
    places: Box<[AtomicU64]>,
}

impl Lengthened {
    pub(crate) fn new() -> Self {
        let places = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { begun: Instant::now(), places }
    }

    /// Whether it is time to lengthen the lifetime of this post. Whoever is told so does it.
    pub(crate) fn is_due(&self, id: PostId) -> bool {
        self.is_due_at(id, self.begun.elapsed())
    }

    fn is_due_at(&self, id: PostId, since_begun: Duration) -> bool {
        // The second half of an id is random.
        let (_, random) = id.0.as_u64_pair();
        let hour = 1 + since_begun.as_secs() / PAUSE.as_secs();
        let this = random ^ hour;
        let place = (random % PLACES as u64) as usize;
        self.places[place].swap(this, Ordering::Relaxed) != this
    }
}

impl fmt::Debug for Lengthened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lengthened").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_lifetime_is_lengthened_once_an_hour() {
        let lengthened = Lengthened::new();
        let due = |id: u128, minutes: u64| {
            let id = PostId(Uuid::from_u128(id));
            lengthened.is_due_at(id, Duration::from_secs(60 * minutes))
        };
        assert_eq!([0, 1, 59].map(|minute| due(7, minute)), [true, false, false]);
        assert_eq!([0, 1, 59].map(|minute| due(8, minute)), [true, false, false]);
        assert_eq!([60, 61, 200].map(|minute| due(7, minute)), [true, false, true]);
    }

    #[test]
    fn posts_that_share_a_place_are_lengthened_more_often_and_never_forgotten() {
        let lengthened = Lengthened::new();
        let due = |id: u128| lengthened.is_due(PostId(Uuid::from_u128(id)));
        let (one, other) = (7, 7 + PLACES as u128);
        assert_eq!([one, other, other, one].map(due), [true, true, false, true]);
    }
}

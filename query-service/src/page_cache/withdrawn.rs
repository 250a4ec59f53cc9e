//! Tombstones: posts that this process knows to be withdrawn, that is unpublished or deleted after they were
//! published.
//!
//! A mark stands for such a post, in place of a copy. No copy that shows the post is served while the mark stands,
//! in whatever response. The mark ends when a later state of the store shows the post published again.
//!
//! At most [`MAX_MARKS`] marks stand at the same time, about 8 MiB. Beyond that the oldest one is dropped, and with
//! it every copy that was read before the mark was set: such a copy might show the post.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use domain::{Position, PostId};
use read_model::StorePosition;

use super::moments::Moments;

/// Maximum number of marks.
const MAX_MARKS: usize = 65_536;

/// Marks of one process. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Withdrawn {
    marks: Arc<Mutex<Marks>>,
    moments: Arc<Moments>,
}

#[derive(Debug)]
struct Marks {
    most: usize,
    by_post: HashMap<PostId, Mark>,
    /// In the order in which they were set.
    order: BTreeMap<u64, (PostId, Instant)>,
    next: u64,
    /// When the latest mark was set of those that were dropped for want of room.
    dropped: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    /// The post was withdrawn there at the latest.
    at: StorePosition,
    number: u64,
}

impl Withdrawn {
    pub(super) fn new(moments: Arc<Moments>) -> Self {
        Self::with_room(MAX_MARKS, moments)
    }

    fn with_room(most: usize, moments: Arc<Moments>) -> Self {
        let marks =
            Marks { most, by_post: HashMap::new(), order: BTreeMap::new(), next: 0, dropped: None };
        Self { marks: Arc::new(Mutex::new(marks)), moments }
    }

    /// Returns `true` if the post must not be shown from any copy.
    pub(crate) fn contains(&self, id: PostId) -> bool {
        self.lock().by_post.contains_key(&id)
    }

    /// Returns `true` if every mark that was set since a copy was read still stands, so that [`Self::contains`]
    /// says all there is to know of the posts in it.
    pub(crate) fn covers(&self, read_at: Instant) -> bool {
        self.lock().dropped.is_none_or(|dropped| read_at > dropped)
    }

    /// Returns `true` if no mark was ever dropped.
    pub(crate) fn are_complete(&self) -> bool {
        self.lock().dropped.is_none()
    }

    /// Position that a read must include to be worth more than the mark of a post.
    pub(crate) fn since(&self, id: PostId) -> Position {
        self.lock().by_post.get(&id).map_or(Position::ZERO, |mark| mark.at.position)
    }

    /// Marks a post that was withdrawn at a position.
    pub(crate) fn note(&self, id: PostId, at: StorePosition) {
        if self.lock().note(id, at) {
            // What was read before is not fresh any more.
            self.moments.end(id, &[]);
        }
    }

    /// Judges a state of the store that shows a post published and includes everything up to a position. An
    /// earlier mark ends; a later one stands, and the post must not be shown.
    pub(crate) fn admits(&self, id: PostId, up_to: StorePosition) -> bool {
        let mut marks = self.lock();
        match marks.by_post.get(&id) {
            Some(mark) if up_to < mark.at => false,
            Some(mark) => {
                let number = mark.number;
                marks.by_post.remove(&id);
                marks.order.remove(&number);
                true
            }
            None => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Marks {
    /// Returns `true` if that was not known.
    fn note(&mut self, id: PostId, at: StorePosition) -> bool {
        let before = self.by_post.get(&id).copied();
        if before.is_some_and(|mark| mark.at >= at) {
            return false;
        }
        if let Some(mark) = before {
            self.order.remove(&mark.number);
        }
        let number = self.next;
        self.next += 1;
        self.by_post.insert(id, Mark { at, number });
        self.order.insert(number, (id, Instant::now()));
        if self.order.len() > self.most
            && let Some((_, (oldest, set_at))) = self.order.pop_first()
        {
            self.by_post.remove(&oldest);
            self.dropped = Some(set_at);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_mark_ends_with_a_later_publication_and_no_earlier_one() {
        let withdrawn = marks(10);
        withdrawn.note(post(1), at(1, 20));
        assert!(withdrawn.contains(post(1)) && !withdrawn.contains(post(2)));
        assert!(!withdrawn.admits(post(1), at(1, 19)));
        withdrawn.note(post(1), at(1, 10));
        assert_eq!(withdrawn.since(post(1)), Position(20));
        assert!(withdrawn.admits(post(1), at(1, 20)));
        assert!(!withdrawn.contains(post(1)));

        withdrawn.note(post(1), at(1, 20));
        assert!(withdrawn.admits(post(1), at(2, 1)), "of a later incarnation");
    }

    #[test]
    fn a_mark_ends_what_was_read_before_it() {
        let withdrawn = marks(10);
        let before = withdrawn.moments.of_post(post(1));
        withdrawn.note(post(1), at(1, 20));
        let marked = withdrawn.moments.of_post(post(1));
        assert_ne!(before, marked);
        withdrawn.note(post(1), at(1, 20));
        assert_eq!(withdrawn.moments.of_post(post(1)), marked, "it was known");
    }

    #[test]
    fn beyond_their_number_the_oldest_mark_is_dropped_with_the_copies_from_before_it() {
        let withdrawn = marks(3);
        let before = Instant::now();
        for number in 0..4 {
            assert!(withdrawn.are_complete() && withdrawn.covers(before));
            withdrawn.note(post(number), at(1, 20));
        }
        assert!(!withdrawn.are_complete() && !withdrawn.covers(before));
        assert!(withdrawn.covers(Instant::now()));
        assert!(!withdrawn.contains(post(0)) && withdrawn.contains(post(3)));
        let lengths = withdrawn.lock();
        assert_eq!((lengths.by_post.len(), lengths.order.len()), (3, 3));
    }

    fn marks(most: usize) -> Withdrawn {
        Withdrawn::with_room(most, Arc::new(Moments::new()))
    }

    fn post(number: u128) -> PostId {
        PostId(Uuid::from_u128(number))
    }

    fn at(incarnation: u32, position: u64) -> StorePosition {
        StorePosition { incarnation, position: Position(position) }
    }
}

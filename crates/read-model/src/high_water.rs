//! High-water marks: the highest watermark that this process has read of each partition, in each generation.
//!
//! Redis may come back from a dump, or fail over to a replica that is behind. What is read below a high-water
//! mark is older than what this process has answered from already.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{Partition, Point};

use crate::Views;
use crate::guard::{StorePosition, Watermark};

/// Maximum number of generations whose marks are retained; the oldest gives way.
const MAX_GENERATIONS: usize = 8;

/// High-water marks of one generation, by partition.
pub type Heights = BTreeMap<Partition, StorePosition>;

/// High-water marks of one process.
#[derive(Debug, Default)]
pub(crate) struct HighWater(Mutex<BTreeMap<u32, Heights>>);

impl HighWater {
    /// Returns the present marks of these partitions. To be taken before Redis is asked: two answers may be
    /// looked at in another order than they were given.
    pub(crate) fn of<'a>(
        &self,
        generation: u32,
        partitions: impl IntoIterator<Item = &'a Partition>,
    ) -> Heights {
        let marks = self.lock();
        let Some(heights) = marks.get(&generation) else { return Heights::new() };
        let height = |partition: &Partition| Some((*partition, *heights.get(partition)?));
        partitions.into_iter().filter_map(height).collect()
    }

    /// Raises a mark to what was read. Views of another version of this program count for nothing.
    pub(crate) fn raise(&self, generation: u32, partition: Partition, mark: &Watermark) {
        if !mark.is_of_this_version() {
            return;
        }
        let mut marks = self.lock();
        let heights = marks.entry(generation).or_default();
        let height = heights.entry(partition).or_insert(mark.at());
        *height = mark.at().max(*height);
        if marks.len() > MAX_GENERATIONS {
            marks.pop_first();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Heights>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` if a watermark lies below the mark that its partition had before it was read.
pub(crate) fn is_behind(before: &Heights, partition: Partition, mark: Option<&Watermark>) -> bool {
    mark.zip(before.get(&partition)).is_some_and(|(mark, height)| mark.at() < *height)
}

impl Views {
    /// Returns the high-water marks of the present generation.
    pub fn heights(&self) -> Heights {
        let partitions: Vec<_> = self.partitions.all().collect();
        self.high_water.of(self.generation(), &partitions)
    }

    /// Lowers those of these high-water marks that lie above the head of their partition in the event store, which
    /// was read after the marks: a watermark that vouched for events that do not exist was wrong.
    pub fn lower_heights(&self, heights: &Heights, incarnation: u32, heads: &[Point]) {
        let mut marks = self.high_water.lock();
        let Some(present) = marks.get_mut(&self.generation()) else { return };
        for (partition, height) in heights {
            let Some(head) = heads.get(usize::from(partition.0)) else { continue };
            let head = StorePosition { incarnation, position: head.position };
            if height.incarnation == incarnation && *height > head {
                present.insert(*partition, head);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Position;
    use uuid::Uuid;

    use super::*;

    const PARTITION: Partition = Partition(3);

    #[test]
    fn a_watermark_below_one_that_was_read_before_is_behind() {
        let water = HighWater::default();
        assert!(!is_behind(&water.of(1, &[PARTITION]), PARTITION, Some(&at(1, 5))));
        water.raise(1, PARTITION, &at(1, 10));
        water.raise(1, PARTITION, &at(1, 8));
        let before = water.of(1, &[PARTITION]);
        for (mark, expected) in [(at(1, 9), true), (at(1, 10), false), (at(2, 1), false)] {
            assert_eq!(is_behind(&before, PARTITION, Some(&mark)), expected, "{mark:?}");
        }
        assert!(!is_behind(&before, PARTITION, None));
        assert!(!is_behind(&water.of(2, &[PARTITION]), PARTITION, Some(&at(1, 1))));
        assert!(!is_behind(&water.of(1, &[Partition(4)]), Partition(4), Some(&at(1, 1))));
    }

    #[test]
    fn views_of_another_version_raise_no_mark() {
        let water = HighWater::default();
        let other = Watermark { epoch: "v1-x".to_owned(), ..at(1, 10) };
        water.raise(1, PARTITION, &other);
        assert!(water.of(1, &[PARTITION]).is_empty());
    }

    #[test]
    fn marks_of_so_many_generations_are_retained() {
        let water = HighWater::default();
        for generation in 1..=20 {
            water.raise(generation, PARTITION, &at(1, 10));
        }
        assert_eq!(water.lock().len(), MAX_GENERATIONS);
        assert!(!water.of(20, &[PARTITION]).is_empty());
    }

    fn at(incarnation: u32, position: u64) -> Watermark {
        Watermark {
            incarnation,
            epoch: Watermark::new_epoch(Uuid::nil()),
            point: Point { position: Position(position), event_id: Uuid::nil() },
            unfilled_below: None,
        }
    }
}

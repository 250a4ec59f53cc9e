//! Heads of the partitions in the event store, polled once a second, and how far the views lag behind them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::{Partition, Partitions, Point, Position};
use read_model::Watermark;

/// Heads as they were seen.
#[derive(Debug)]
pub(crate) struct Heads {
    /// How long views may lag before a response says so.
    limit: Duration,
    /// For each partition the position that views should have reached by now.
    due: Box<[AtomicU64]>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    incarnation: u32,
    partitions: Vec<Head>,
}

#[derive(Debug, Clone, Default)]
struct Head {
    /// When the head was first seen at a position, oldest first. The first one is due, all others are younger
    /// than the limit.
    moves: VecDeque<(Instant, Position)>,
    /// Since when the views lack something of this partition.
    behind_since: Option<Instant>,
}

impl Heads {
    pub(crate) fn new(incarnation: u32, partitions: Partitions, limit: Duration) -> Self {
        let count = usize::from(partitions.count());
        let seen = Seen { incarnation, partitions: vec![Head::default(); count] };
        let due = (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { limit, due, seen: Mutex::new(seen) }
    }

    /// Returns `true` if a watermark of the present incarnation lacks what was recorded longer ago than views may
    /// lag.
    pub(crate) fn are_overdue(&self, partition: Partition, position: Position) -> bool {
        let due = self.due.get(usize::from(partition.0));
        due.is_some_and(|due| position.0 < due.load(Ordering::Relaxed))
    }

    /// Notes the heads of all partitions as they are now.
    pub(crate) fn note(&self, incarnation: u32, heads: &[Point]) {
        self.note_at(Instant::now(), incarnation, heads);
    }

    fn note_at(&self, now: Instant, incarnation: u32, heads: &[Point]) {
        let mut seen = self.lock();
        if seen.incarnation != incarnation {
            // Positions of another incarnation mean something else.
            seen.incarnation = incarnation;
            seen.partitions.fill(Head::default());
        }
        for ((head, point), due) in seen.partitions.iter_mut().zip(heads).zip(&self.due) {
            if head.moves.back().is_none_or(|(_, position)| *position != point.position) {
                head.moves.push_back((now, point.position));
            }
            let is_due = |(at, _): &(Instant, Position)| now.duration_since(*at) >= self.limit;
            while head.moves.get(1).is_some_and(is_due) {
                head.moves.pop_front();
            }
            let first = head.moves.front().filter(|first| is_due(first));
            due.store(first.map_or(0, |(_, position)| position.0), Ordering::Relaxed);
        }
    }

    /// Measures how long the views have lacked something, partition by partition.
    pub(crate) fn measure(&self, marks: &[Option<Watermark>]) {
        for (number, lag) in self.lags_at(Instant::now(), marks).into_iter().enumerate() {
            let partition = number.to_string();
            metrics::gauge!("views_lag_seconds", "partition" => partition).set(lag.as_secs_f64());
        }
    }

    fn lags_at(&self, now: Instant, marks: &[Option<Watermark>]) -> Vec<Duration> {
        let mut seen = self.lock();
        let incarnation = seen.incarnation;
        let lag = |(head, mark): (&mut Head, &Option<Watermark>)| {
            let mark = mark.as_ref().filter(|mark| mark.incarnation == incarnation);
            let reached = mark.map_or(Position::ZERO, |mark| mark.point.position);
            let lacking = head.moves.iter().find(|(_, position)| *position > reached);
            // The first move that is lacking may have been forgotten since it became due.
            head.behind_since = lacking.map(|(at, _)| match head.behind_since {
                Some(since) if head.moves.front().map(|(first, _)| first) == Some(at) => {
                    since.min(*at)
                }
                Some(_) | None => *at,
            });
            head.behind_since.map_or(Duration::ZERO, |since| now.duration_since(since))
        };
        seen.partitions.iter_mut().zip(marks).map(lag).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const PARTITION: Partition = Partition(0);

    #[test]
    fn what_was_recorded_longer_ago_than_the_limit_is_overdue() {
        let (heads, begun) = (heads(), Instant::now());
        let second = |second| begun + Duration::from_secs(second);
        for now in 0..=12 {
            // It stands still after seven seconds.
            let head = 10 + now.min(7);
            heads.note_at(second(now), 1, &[point(head)]);
            let overdue = |position| heads.are_overdue(PARTITION, Position(position));
            let due = if now < 5 { 0 } else { 10 + (now - 5) };
            assert!(!overdue(due), "{now}");
            assert_eq!(due > 0, overdue(due.saturating_sub(1)), "{now}");
        }
        assert_eq!(heads.lock().partitions[0].moves.len(), 1);
    }

    #[test]
    fn heads_of_another_incarnation_say_nothing() {
        let (heads, begun) = (heads(), Instant::now());
        heads.note_at(begun, 1, &[point(10)]);
        heads.note_at(begun + Duration::from_secs(6), 1, &[point(10)]);
        assert!(heads.are_overdue(PARTITION, Position(9)));
        heads.note_at(begun + Duration::from_secs(7), 2, &[point(5)]);
        assert!(!heads.are_overdue(PARTITION, Position(1)));
    }

    #[test]
    fn the_lag_is_the_age_of_the_first_event_that_the_views_lack() {
        let (heads, begun) = (heads(), Instant::now());
        let second = |second| begun + Duration::from_secs(second);
        let lag = |now, position| heads.lags_at(second(now), &[Some(standing_at(position))])[0];
        for now in 0..=20 {
            heads.note_at(second(now), 1, &[point(10 + now)]);
            assert_eq!(lag(now, 10 + now), Duration::ZERO);
        }
        assert_eq!(lag(20, 28), Duration::from_secs(1));
        assert_eq!(lag(20, 14), Duration::from_secs(5), "as far back as heads are known");
        heads.note_at(second(30), 1, &[point(40)]);
        assert_eq!(lag(30, 14), Duration::from_secs(15));
        assert_eq!(lag(30, 40), Duration::ZERO);
    }

    fn heads() -> Heads {
        Heads::new(1, Partitions::new(1).unwrap(), Duration::from_secs(5))
    }

    fn point(position: u64) -> Point {
        Point { position: Position(position), event_id: Uuid::nil() }
    }

    fn standing_at(position: u64) -> Watermark {
        let (epoch, point) = (Watermark::new_epoch(Uuid::nil()), point(position));
        Watermark { incarnation: 1, epoch, point, unfilled_below: None }
    }
}

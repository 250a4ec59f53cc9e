//! How far the views of a partition have come, and what that says of an event.

use domain::{Point, Position};
use uuid::Uuid;

use crate::VIEW_VERSION;

/// How far the views of a partition have come. It moves in the same step as the rows it vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    /// The store's life in which its position was given.
    pub incarnation: u32,
    /// The views' life since the last loss: a row of another one counts as absent.
    pub epoch: String,
    pub point: Point,
    /// The partition has not been filled yet with what last changed below this position, so an absent row,
    /// or one that is missing from a list, means nothing. `None` once it has been.
    pub unfilled_below: Option<Position>,
}

/// A position together with the incarnation of the store in which it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StorePosition {
    pub incarnation: u32,
    pub position: Position,
}

impl Watermark {
    /// Position of the watermark in the whole store.
    pub fn at(&self) -> StorePosition {
        StorePosition { incarnation: self.incarnation, position: self.point.position }
    }

    /// The name of an epoch that begins now: the version of the views, and something never used before.
    pub fn new_epoch(random: Uuid) -> String {
        format!("{}{}", version_prefix(), random.simple())
    }

    /// Whether what it vouches for was written by code of this version of the views. If not, it can be neither
    /// read nor added to: the partition is begun anew.
    pub fn is_of_this_version(&self) -> bool {
        self.epoch.starts_with(&version_prefix())
    }
}

fn version_prefix() -> String {
    format!("v{VIEW_VERSION}-")
}

/// What a watermark says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// The one that comes next.
    Next,
    /// Seen already.
    Duplicate,
    /// Something is missing before it.
    Gap,
    /// The log that this event stands in is not the one the views were made from.
    Fork,
}

/// Judges an event at `event`, behind `previous` in its partition, against the watermark.
pub fn judge(watermark: &Watermark, incarnation: u32, previous: Point, event: Point) -> Judgement {
    let point = watermark.point;
    if incarnation > watermark.incarnation {
        return Judgement::Fork;
    }
    // Recorded before the store came back from an earlier state: either still in the log, and then in the
    // views, or void.
    if incarnation < watermark.incarnation {
        return Judgement::Duplicate;
    }
    if point == previous {
        Judgement::Next
    } else if point.position < previous.position {
        Judgement::Gap
    } else if point.position == previous.position {
        Judgement::Fork
    } else if point.position < event.position
        || (point.position == event.position && point != event)
    {
        // The watermark stands between the two, where there should be nothing, or at another event.
        Judgement::Fork
    } else {
        Judgement::Duplicate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_tells_the_version_of_its_views() {
        let named = |epoch: &str| Watermark { epoch: epoch.to_owned(), ..standing_at(at(5)) };
        assert!(named(&Watermark::new_epoch(Uuid::nil())).is_of_this_version());
        for other in ["", "an epoch", &format!("v{}-x", VIEW_VERSION + 1), "v1-x"] {
            assert!(!named(other).is_of_this_version(), "{other}");
        }
    }

    #[test]
    fn an_event_is_let_in_once_and_in_order() {
        let cases = [
            ("behind the watermark", at(5), at(5), at(8), Judgement::Next),
            ("the first of all", Point::START, Point::START, at(1), Judgement::Next),
            ("the one it stands at", at(8), at(5), at(8), Judgement::Duplicate),
            ("one before it", at(9), at(2), at(5), Judgement::Duplicate),
            ("one was missed", at(5), at(7), at(8), Judgement::Gap),
            ("all were missed", Point::START, at(7), at(8), Judgement::Gap),
            ("another event at its position", at(8), at(5), other(8), Judgement::Fork),
            ("another event before it", at(5), other(5), at(8), Judgement::Fork),
            ("nothing was where it stands", at(6), at(5), at(8), Judgement::Fork),
        ];
        for (case, watermark, previous, event, expected) in cases {
            assert_eq!(judge(&standing_at(watermark), 1, previous, event), expected, "{case}");
        }
    }

    #[test]
    fn an_event_of_a_later_incarnation_forks_and_one_of_an_earlier_is_void() {
        assert_eq!(judge(&standing_at(at(5)), 2, at(5), at(8)), Judgement::Fork);
        assert_eq!(judge(&standing_at(at(5)), 0, at(5), at(8)), Judgement::Duplicate);
    }

    fn standing_at(point: Point) -> Watermark {
        Watermark { incarnation: 1, epoch: "e".to_owned(), point, unfilled_below: None }
    }

    fn at(position: u64) -> Point {
        Point { position: Position(position), event_id: Uuid::from_u128(u128::from(position)) }
    }

    fn other(position: u64) -> Point {
        Point { position: Position(position), event_id: Uuid::from_u128(1000) }
    }
}

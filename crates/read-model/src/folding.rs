//! Folds that may panic. A panic ends the page of its event there, and never the process.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use domain::post::PostEvent;
use domain::{Position, PostId, Recorded};

use crate::post_page::PostPage;
use crate::row::Row;

/// Folds one event into the page of its post. `None` is a post that is not there: not yet, or deleted.
pub type Fold = fn(Option<PostPage>, &Recorded<PostEvent>, PostId) -> Option<PostPage>;

/// The panic of a fold or of a rendering, by its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("folding it panicked: {0}")]
pub struct FoldPanic(String);

/// Pages folded from their histories.
#[derive(Debug, Default)]
pub struct Folds {
    pub rows: HashMap<PostId, Row>,
    /// Pages that end before an event whose fold panicked.
    pub ended: Vec<FoldEnd>,
}

/// An event whose fold panicked. What stands behind it means nothing without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldEnd {
    pub post_id: PostId,
    pub position: Position,
    pub reason: String,
}

/// Folds one event into a row, which stays as it was if the fold panics.
pub fn fold_caught(
    fold: Fold,
    row: &mut Option<Row>,
    event: &Recorded<PostEvent>,
    id: PostId,
) -> Result<(), FoldPanic> {
    let before = row.clone();
    let folded = catch_unwind(AssertUnwindSafe(|| Row::fold_by(fold, before, event, id)));
    *row = Some(folded.map_err(|panic| FoldPanic(message(&*panic)))?);
    Ok(())
}

/// Folds whole histories, page by page, each post's events in the order of its stream. `None` is an event that is
/// left out. An event whose fold panics is left out as well where `is_discarded` says so; otherwise its page ends.
pub async fn fold_histories_caught<E, F>(
    fold: Fold,
    events: impl IntoIterator<Item = Recorded<Option<PostEvent>>>,
    is_discarded: impl Fn(Position) -> F,
) -> Result<Folds, E>
where
    F: Future<Output = Result<bool, E>>,
{
    let mut folds = Folds::default();
    for event in events {
        let Ok(post_id) = event.stream_id.parse::<PostId>() else { continue };
        if folds.ended.last().is_some_and(|end| end.post_id == post_id) {
            continue;
        }
        let (position, sequence) = (event.position, event.sequence);
        let mut row = folds.rows.remove(&post_id);
        let panic = match event.try_map(|event| event.ok_or(())) {
            Ok(event) => fold_caught(fold, &mut row, &event, post_id).err(),
            Err(()) => {
                row = Some(Row::pass_over(row, position, sequence));
                None
            }
        };
        if let Some(panic) = panic {
            if is_discarded(position).await? {
                row = Some(Row::pass_over(row, position, sequence));
            } else {
                folds.ended.push(FoldEnd { post_id, position, reason: panic.to_string() });
            }
        }
        folds.rows.extend(row.map(|row| (post_id, row)));
    }
    Ok(folds)
}

/// Returns the message of a panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::FutureExt as _;
    use serde_json::json;

    use super::*;
    use crate::post_page::fold_page;
    use crate::post_page::tests::{ID, drafted_by_anne, published, recorded};

    #[test]
    fn a_fold_that_panics_leaves_its_row_as_it_was() {
        let mut row = None;
        for event in [recorded(1, drafted_by_anne()), recorded(2, published("a"))] {
            fold_caught(panics_at_3, &mut row, &event, ID).unwrap();
        }
        let before = row.clone();
        let panic = fold_caught(panics_at_3, &mut row, &recorded(3, retitled()), ID).unwrap_err();
        assert_eq!(panic.to_string(), "folding it panicked: sequence 3");
        assert_eq!(row, before);
    }

    #[test]
    fn a_history_ends_before_the_event_whose_fold_panics() {
        let folds = folded(false);
        assert_eq!(folds.rows[&ID].position, Position(20));
        let reason = "folding it panicked: sequence 3".to_owned();
        assert_eq!(folds.ended, [FoldEnd { post_id: ID, position: Position(30), reason }]);
    }

    #[test]
    fn a_discarded_event_whose_fold_panics_is_passed_over() {
        let folds = folded(true);
        let row = &folds.rows[&ID];
        assert_eq!((row.position, folds.ended.len()), (Position(40), 0));
        let card = &row.page.as_ref().unwrap().card;
        assert_eq!((card.title.as_str(), card.version), ("On writing", 4));
        assert_eq!(card.slug.as_ref().unwrap().as_str(), "b");
    }

    fn folded(is_discarded: bool) -> Folds {
        let events = [drafted_by_anne(), published("a"), retitled(), published("b")];
        let events = (1..).zip(events).map(|(number, event)| {
            recorded(number, event).try_map(|event| Ok::<_, Infallible>(Some(event))).unwrap()
        });
        let discarded = async |_| Ok::<_, Infallible>(is_discarded);
        let folds = fold_histories_caught(panics_at_3, events, discarded);
        folds.now_or_never().unwrap().unwrap()
    }

    fn retitled() -> serde_json::Value {
        json!({"revised": {"changes": {"title": "On panics"}}})
    }

    fn panics_at_3(
        page: Option<PostPage>,
        event: &Recorded<PostEvent>,
        id: PostId,
    ) -> Option<PostPage> {
        if event.sequence == 3 {
            panic!("sequence 3");
        }
        fold_page(page, event, id)
    }
}

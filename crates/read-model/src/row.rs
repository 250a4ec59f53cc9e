//! A post as a row: its page, as of the last event folded into it, in the shape in which Redis keeps it.
//!
//! A row holds its page as two fragments of JSON that are joined as bytes, so that answering a reader
//! parses and prints nothing.

use std::collections::HashMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use domain::post::{PostEvent, Status};
use domain::{Position, PostId, Recorded, Slug};

use crate::announcements::Visibility;
use crate::folding::Fold;
use crate::guard::StorePosition;
use crate::post_page::{PostPage, fold_page};

/// A post as of the last event folded into it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub position: Position,
    /// `None` once the post is deleted: the row stays, so that a late event cannot bring it back and an old
    /// address says that it is gone.
    pub page: Option<PostPage>,
    /// Published now or earlier. A deleted post that never was looks like one that never existed.
    pub was_published: bool,
}

impl Row {
    /// Folds one event into a row. One at or below its position is in it already.
    pub fn fold(row: Option<Self>, event: &Recorded<PostEvent>, id: PostId) -> Self {
        Self::fold_by(fold_page, row, event, id)
    }

    pub(crate) fn fold_by(
        fold: Fold,
        row: Option<Self>,
        event: &Recorded<PostEvent>,
        id: PostId,
    ) -> Self {
        match row {
            Some(row) if row.position >= event.position => row,
            before => {
                let was_published = before.as_ref().is_some_and(|row| row.was_published)
                    || matches!(event.payload, PostEvent::Published { .. });
                let page = fold(before.and_then(|row| row.page), event, id);
                Self { position: event.position, page, was_published }
            }
        }
    }

    /// Visibility of the post to readers, as of the row's last event.
    pub(crate) fn visibility(&self, incarnation: u32) -> Visibility {
        let at = StorePosition { incarnation, position: self.position };
        let is_published =
            self.page.as_ref().is_some_and(|page| page.card.status == Status::Published);
        match (is_published, self.was_published) {
            (true, _) => Visibility::Published(at),
            (false, true) => Visibility::Withdrawn(at),
            (false, false) => Visibility::Unpublished(at),
        }
    }

    /// Comes past an event that is left out: nothing follows from it, but what comes behind it follows here.
    pub fn pass_over(row: Option<Self>, position: Position, sequence: u64) -> Self {
        match row {
            Some(row) if row.position >= position => row,
            before => {
                let was_published = before.as_ref().is_some_and(|row| row.was_published);
                let mut page = before.and_then(|row| row.page);
                if let Some(page) = &mut page {
                    page.card.version = sequence;
                }
                Self { position, page, was_published }
            }
        }
    }
}

/// Folds whole histories as [`fold_pages`] does, where some events are left out: those that are `None`.
pub fn fold_histories(
    events: impl IntoIterator<Item = Recorded<Option<PostEvent>>>,
) -> HashMap<PostId, Row> {
    let mut rows: HashMap<PostId, Row> = HashMap::new();
    for event in events {
        let Ok(id) = event.stream_id.parse::<PostId>() else { continue };
        let (before, position, sequence) = (rows.remove(&id), event.position, event.sequence);
        let row = match event.try_map(|event| event.ok_or(())) {
            Ok(event) => Row::fold(before, &event, id),
            Err(()) => Row::pass_over(before, position, sequence),
        };
        rows.insert(id, row);
    }
    rows
}

/// Folds whole histories, each post's events in the order of its stream.
pub fn fold_pages<'a>(
    events: impl IntoIterator<Item = &'a Recorded<PostEvent>>,
) -> HashMap<PostId, Row> {
    let mut rows: HashMap<PostId, Row> = HashMap::new();
    for event in events {
        // A stream of posts whose id is no post's was not written by us; it has no address either.
        if let Ok(id) = event.stream_id.parse::<PostId>() {
            let row = Row::fold(rows.remove(&id), event, id);
            rows.insert(id, row);
        }
    }
    rows
}

/// A row as Redis keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    pub position: Position,
    /// `None` once the post is deleted.
    pub page: Option<StoredPage>,
    /// Published now or earlier.
    pub was_published: bool,
}

impl StoredRow {
    /// Returns `true` if readers other than the author may see the post.
    pub fn is_published(&self) -> bool {
        self.page.as_ref().is_some_and(|page| page.published)
    }

    /// Returns `true` if the post was published, and is not any more.
    pub fn is_withdrawn(&self) -> bool {
        self.was_published && !self.is_published()
    }

    /// Name of the row's state in Redis.
    pub(crate) fn state(&self) -> &'static str {
        match (&self.page, self.was_published) {
            (Some(page), _) if page.published => PUBLISHED,
            (Some(_), true) => WITHDRAWN,
            (Some(_), false) => DRAFT,
            (None, true) => DELETED,
            (None, false) => DELETED_DRAFT,
        }
    }
}

/// States of a row in Redis. The guard knows the last two.
pub(crate) const PUBLISHED: &str = "published";
pub(crate) const WITHDRAWN: &str = "withdrawn";
pub(crate) const DRAFT: &str = "draft";
pub(crate) const DELETED: &str = "deleted";
pub(crate) const DELETED_DRAFT: &str = "deleted-draft";

/// A page, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPage {
    pub published: bool,
    /// The slug that the post has now.
    pub slug: Option<Slug>,
    /// Not part of what is sent.
    pub created_at: DateTime<Utc>,
    /// The card: a JSON object.
    pub card: Bytes,
    /// The text: a JSON string.
    pub content: Bytes,
}

impl StoredPage {
    /// The whole page as JSON: the card with one more member.
    pub fn to_json(&self) -> Bytes {
        const MEMBER: &[u8] = b",\"content\":";
        let card = self.card.strip_suffix(b"}").unwrap_or(&self.card);
        let mut json = Vec::with_capacity(card.len() + MEMBER.len() + self.content.len() + 1);
        json.extend_from_slice(card);
        json.extend_from_slice(MEMBER);
        json.extend_from_slice(&self.content);
        json.push(b'}');
        json.into()
    }
}

impl TryFrom<&Row> for StoredRow {
    type Error = serde_json::Error;

    fn try_from(row: &Row) -> Result<Self, serde_json::Error> {
        let stored = |page: &PostPage| {
            Ok::<_, serde_json::Error>(StoredPage {
                published: page.card.status == Status::Published,
                slug: page.card.slug.clone(),
                created_at: page.created_at,
                card: serde_json::to_vec(&page.card)?.into(),
                content: serde_json::to_vec(&page.content)?.into(),
            })
        };
        let page = row.page.as_ref().map(stored).transpose()?;
        Ok(Self { position: row.position, page, was_published: row.was_published })
    }
}

impl TryFrom<&StoredRow> for Row {
    type Error = serde_json::Error;

    fn try_from(row: &StoredRow) -> Result<Self, serde_json::Error> {
        let page = |page: &StoredPage| {
            Ok::<_, serde_json::Error>(PostPage {
                card: serde_json::from_slice(&page.card)?,
                content: serde_json::from_slice(&page.content)?,
                created_at: page.created_at,
            })
        };
        let page = row.page.as_ref().map(page).transpose()?;
        Ok(Self { position: row.position, page, was_published: row.was_published })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::post_page::tests::{ID, drafted_by_anne, published, recorded};

    #[test]
    fn an_event_at_or_below_its_position_leaves_a_row_as_it_is() {
        let drafted = recorded(1, drafted_by_anne());
        let row = Row::fold(Some(Row::fold(None, &drafted, ID)), &recorded(2, published("a")), ID);
        assert_eq!(row.position, Position(20));
        assert_eq!(Row::fold(Some(row.clone()), &drafted, ID), row);
    }

    #[test]
    fn a_late_event_does_not_bring_a_deleted_post_back() {
        let events = [recorded(1, drafted_by_anne()), recorded(3, json!({"deleted": {}}))];
        let row = fold_pages(&events).remove(&ID).unwrap();
        assert_eq!(Row::fold(Some(row.clone()), &recorded(2, published("a")), ID), row);
    }

    #[test]
    fn a_deleted_post_stays_one_that_was_published_or_never_was() {
        let deleted = |number| recorded(number, json!({"deleted": {}}));
        let draft = [recorded(1, drafted_by_anne()), deleted(2)];
        let withdrawn = [
            recorded(1, drafted_by_anne()),
            recorded(2, published("a")),
            recorded(3, json!({"unpublished": {}})),
            deleted(4),
        ];
        for (events, was_published, state) in
            [(&draft[..], false, DELETED_DRAFT), (&withdrawn, true, DELETED)]
        {
            let row = fold_pages(events).remove(&ID).unwrap();
            let stored = StoredRow::try_from(&row).unwrap();
            assert_eq!((row.page, row.was_published), (None, was_published));
            assert_eq!((stored.is_withdrawn(), stored.state()), (was_published, state));
        }
        let unpublished = fold_pages(&withdrawn[..3]).remove(&ID).unwrap();
        let stored = StoredRow::try_from(&unpublished).unwrap();
        assert_eq!((stored.is_withdrawn(), stored.state()), (true, WITHDRAWN));
    }

    #[test]
    fn an_event_that_is_left_out_changes_nothing_but_how_far_a_row_has_come() {
        let some = |event: Recorded<PostEvent>| event.try_map(|event| Ok::<_, ()>(Some(event)));
        let left_out = recorded(2, published("a")).try_map(|_| Ok::<_, ()>(None)).unwrap();
        let drafted = some(recorded(1, drafted_by_anne())).unwrap();
        let before = fold_histories([drafted.clone()]).remove(&ID).unwrap();
        let row = fold_histories([drafted, left_out.clone()]).remove(&ID).unwrap();
        assert_eq!(row.position, Position(20));
        let (mut page, before) = (row.page.unwrap(), before.page.unwrap());
        assert_eq!(page.card.version, 2);
        page.card.version = before.card.version;
        assert_eq!(page, before);

        // What would have begun with it is as if it were gone.
        let gone = Some(Row { position: Position(20), page: None, was_published: false });
        assert_eq!(fold_histories([left_out]).remove(&ID), gone);
    }

    #[test]
    fn a_row_is_read_back_as_it_was_stored() {
        let events = [recorded(1, drafted_by_anne()), recorded(2, published("a"))];
        let row = fold_pages(&events).remove(&ID).unwrap();
        let stored = StoredRow::try_from(&row).unwrap();
        assert_eq!(Row::try_from(&stored).unwrap(), row);
    }

    #[test]
    fn the_fragments_make_one_page() {
        let events = [recorded(1, drafted_by_anne()), recorded(2, published("a"))];
        let row = fold_pages(&events).remove(&ID).unwrap();
        let page = StoredRow::try_from(&row).unwrap().page.unwrap();
        let whole: serde_json::Value = serde_json::from_slice(&page.to_json()).unwrap();
        let mut expected = serde_json::to_value(&row.page.unwrap().card).unwrap();
        expected["content"] = json!("Begin.");
        assert_eq!(whole, expected);
    }
}

//! Keeps one [`PostPage`] for each post, for `GET /posts/{slug}`, and its card for the lists.

use chrono::{DateTime, SubsecRound, Utc};
use domain::post::{Author, PostChanges, PostContent, PostEvent, Status, Tag};
use domain::{PostId, Recorded, Slug};
use serde::{Deserialize, Serialize};

/// What a list shows of a post: all but its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PostCard {
    pub id: PostId,
    pub slug: Option<Slug>,
    pub title: String,
    pub summary: Option<String>,
    pub tags: Vec<Tag>,
    pub author: PageAuthor,
    pub status: Status,
    /// First publication; `None` before it.
    pub published_at: Option<DateTime<Utc>>,
    /// When readers last got another text: a title, summary or content, or its first publication. A slug, a tag or
    /// a republication does not move it.
    pub updated_at: DateTime<Utc>,
    /// How far the post has come in its stream.
    pub version: u64,
}

/// The author by the name they had when they wrote the post.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PageAuthor {
    pub id: String,
    pub name: Option<String>,
}

/// A post as its readers see it.
#[derive(Debug, Clone, PartialEq)]
pub struct PostPage {
    pub card: PostCard,
    pub content: String,
    /// When its first event was recorded. Readers are not told; it says where its author finds it.
    pub created_at: DateTime<Utc>,
}

impl PostPage {
    /// The text whose HTML is stored beside the page; empty for a draft, which is rendered when its author reads it.
    pub(crate) fn text_to_render(&self) -> &str {
        match self.card.status {
            Status::Published => &self.content,
            Status::Unwritten | Status::Draft | Status::Deleted => "",
        }
    }
}

/// Folds one event into the page of its post. `None` is a post that is not there: not yet, or deleted.
pub fn fold_page(
    page: Option<PostPage>,
    event: &Recorded<PostEvent>,
    id: PostId,
) -> Option<PostPage> {
    let at = event.recorded_at.trunc_subsecs(6);
    let at_version = |page: PostPage| PostPage {
        card: PostCard { version: event.sequence, ..page.card },
        ..page
    };
    match &event.payload {
        PostEvent::Drafted { author, content, slug } => {
            Some(drafted(id, author, content, slug.as_ref(), event))
        }
        PostEvent::Published { slug } => page.map(at_version).map(|mut page| {
            page.card.slug = Some(slug.clone());
            page.card.status = Status::Published;
            if page.card.published_at.is_none() {
                page.card.published_at = Some(at);
                page.card.updated_at = at;
            }
            page
        }),
        PostEvent::Revised { changes, slug } => page.map(at_version).map(|mut page| {
            page.card.slug = slug.clone().or(page.card.slug);
            if is_another_text(&page, changes) {
                page.card.updated_at = at;
            }
            revised(page, changes)
        }),
        PostEvent::Unpublished {} => page.map(at_version).map(|mut page| {
            page.card.status = Status::Draft;
            page
        }),
        PostEvent::Deleted {} => None,
    }
}

fn drafted(
    id: PostId,
    author: &Author,
    content: &PostContent,
    slug: Option<&Slug>,
    event: &Recorded<PostEvent>,
) -> PostPage {
    let at = event.recorded_at.trunc_subsecs(6);
    PostPage {
        card: PostCard {
            id,
            slug: slug.cloned(),
            title: content.title.as_str().to_owned(),
            summary: summary(content.summary.as_str()),
            tags: content.tags.clone(),
            author: PageAuthor { id: author.id.as_str().to_owned(), name: author.name.clone() },
            status: Status::Draft,
            published_at: None,
            updated_at: at,
            version: event.sequence,
        },
        content: content.content.as_str().to_owned(),
        created_at: at,
    }
}

/// Returns `true` if a reader sees another text after these changes.
fn is_another_text(page: &PostPage, changes: &PostChanges) -> bool {
    let PostChanges { title, content, summary: text, tags: _ } = changes;
    title.as_ref().is_some_and(|title| title.as_str() != page.card.title)
        || content.as_ref().is_some_and(|content| content.as_str() != page.content)
        || text.as_ref().is_some_and(|text| summary(text.as_str()) != page.card.summary)
}

fn revised(mut page: PostPage, changes: &PostChanges) -> PostPage {
    if let Some(title) = &changes.title {
        page.card.title = title.as_str().to_owned();
    }
    if let Some(content) = &changes.content {
        page.content = content.as_str().to_owned();
    }
    if let Some(text) = &changes.summary {
        page.card.summary = summary(text.as_str());
    }
    if let Some(tags) = &changes.tags {
        page.card.tags = tags.clone();
    }
    page
}

/// The domain writes no summary as an empty one; readers are told `null`.
fn summary(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use domain::Position;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    pub(crate) const ID: PostId =
        PostId(Uuid::from_u128(0x0192_f0c1_2d3e_7f4a_8b5c_6d7e_8f90_1234));

    #[test]
    fn a_draft_shows_what_was_written() {
        let page = history([drafted_by_anne()]).unwrap();
        assert_eq!(
            serde_json::to_value(&page.card).unwrap(),
            json!({
                "id": ID, "slug": null, "title": "On writing", "summary": null, "tags": ["craft"],
                "author": {"id": "anne", "name": "Anne"}, "status": "draft",
                "published_at": null, "updated_at": "2026-05-04T03:02:01Z", "version": 1,
            })
        );
        assert_eq!(page.content, "Begin.");
    }

    #[test]
    fn the_first_publication_dates_a_post_for_good() {
        let page = history([
            drafted_by_anne(),
            published("a"),
            json!({"unpublished": {}}),
            published("a"),
        ])
        .unwrap();
        assert_eq!(page.card.published_at, Some(at(2)));
        assert_eq!(page.card.updated_at, at(2));
        assert_eq!(page.card.status, Status::Published);
        assert_eq!(page.card.version, 4);
    }

    #[test]
    fn only_another_text_moves_the_time_of_the_update() {
        let updated_by = |event: serde_json::Value| {
            let page = history([drafted_by_anne(), published("a"), event]).unwrap();
            page.card.updated_at
        };
        for changes in [
            json!({"title": "On reading"}),
            json!({"content": "Go on."}),
            json!({"summary": "Short"}),
        ] {
            assert_eq!(updated_by(json!({"revised": {"changes": changes}})), at(3), "{changes}");
        }
        for changes in [
            json!({}),
            json!({"tags": ["art"]}),
            json!({"title": "On writing", "content": "Begin.", "summary": ""}),
        ] {
            let revised = json!({"revised": {"changes": changes, "slug": "b"}});
            assert_eq!(updated_by(revised), at(2), "{changes}");
        }
        assert_eq!(updated_by(json!({"unpublished": {}})), at(2));
        let hidden = json!({"revised": {"changes": {"title": "On reading"}}});
        let again =
            [drafted_by_anne(), published("a"), json!({"unpublished": {}}), hidden, published("a")];
        assert_eq!(history(again).unwrap().card.updated_at, at(4));
    }

    #[test]
    fn a_post_stays_as_old_as_it_is() {
        let revised = json!({"revised": {"changes": {"title": "On reading"}}});
        let page = history([drafted_by_anne(), published("a"), revised]).unwrap();
        assert_eq!(page.created_at, at(1));
    }

    #[test]
    fn an_unpublished_post_is_a_draft_with_its_slug() {
        let page =
            history([drafted_by_anne(), published("a"), json!({"unpublished": {}})]).unwrap();
        assert_eq!(page.card.status, Status::Draft);
        assert_eq!(page.card.slug.unwrap().as_str(), "a");
    }

    #[test]
    fn a_revision_leaves_what_it_does_not_name() {
        let revised = json!({"revised": {"changes": {"title": "On reading", "tags": []}}});
        let page = history([drafted_by_anne(), published("a"), revised]).unwrap();
        assert_eq!(page.card.title, "On reading");
        assert_eq!(page.card.tags, vec![]);
        assert_eq!(page.content, "Begin.");
        assert_eq!(page.card.slug.unwrap().as_str(), "a");
    }

    #[test]
    fn a_revision_may_move_the_slug() {
        let revised = json!({"revised": {"changes": {"summary": "Short"}, "slug": "b"}});
        let page = history([drafted_by_anne(), published("a"), revised]).unwrap();
        assert_eq!(page.card.slug.unwrap().as_str(), "b");
        assert_eq!(page.card.summary.as_deref(), Some("Short"));
    }

    #[test]
    fn a_deleted_post_is_gone() {
        assert_eq!(history([drafted_by_anne(), json!({"deleted": {}})]), None);
    }

    fn history<const N: usize>(events: [serde_json::Value; N]) -> Option<PostPage> {
        (1..)
            .zip(events)
            .fold(None, |page, (number, event)| fold_page(page, &recorded(number, event), ID))
    }

    pub(crate) fn recorded(number: u64, event: serde_json::Value) -> Recorded<PostEvent> {
        Recorded {
            position: Position(10 * number),
            event_id: Uuid::from_u128(u128::from(number)),
            stream_id: ID.to_string(),
            sequence: number,
            recorded_at: at(number),
            payload: serde_json::from_value(event).unwrap(),
        }
    }

    fn at(number: u64) -> DateTime<Utc> {
        format!("2026-05-04T03:02:0{number}Z").parse().unwrap()
    }

    pub(crate) fn drafted_by_anne() -> serde_json::Value {
        json!({"drafted": {
            "author": {"id": "anne", "name": "Anne"},
            "content": {"title": "On writing", "content": "Begin.", "tags": ["craft"]},
        }})
    }

    pub(crate) fn published(slug: &str) -> serde_json::Value {
        json!({"published": {"slug": slug}})
    }
}

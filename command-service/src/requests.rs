//! The bodies of requests, as clients write them, and what is read from them.
//!
//! Parsing refuses what has the wrong shape. Here the limits of each field are checked, all of them
//! before the request is refused.

use domain::post::{MAX_TAGS, PostChanges, PostContent, Summary, Tag};
use domain::{Invalid, Slug};
use http_api::{FieldErrors, Problem};
use serde::{Deserialize, Deserializer};

/// The body of `POST /posts`. Fields that must be there are optional, so that all that are missing
/// are told at once.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPost {
    title: Option<String>,
    content: Option<String>,
    summary: Option<String>,
    tags: Option<Vec<String>>,
    slug: Option<String>,
    status: Option<FirstStatus>,
}

/// The body of `POST /post`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Article {
    title: Option<String>,
    content: Option<String>,
}

/// The body of `PATCH /posts/{id}`: a merge patch, in which `null` removes. A post without a title,
/// a content or a slug of its choice cannot be, so there `null` is of the wrong type.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Patch {
    #[serde(default, deserialize_with = "given")]
    title: Option<String>,
    #[serde(default, deserialize_with = "given")]
    content: Option<String>,
    #[serde(default, deserialize_with = "given_or_null")]
    summary: Option<String>,
    #[serde(default, deserialize_with = "given_or_null")]
    tags: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    slug: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FirstStatus {
    Published,
    Draft,
}

/// A post to be made.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) content: PostContent,
    pub(crate) slug: Option<Slug>,
    pub(crate) publish: bool,
}

/// A post to be changed.
#[derive(Debug)]
pub(crate) struct Revision {
    pub(crate) changes: PostChanges,
    pub(crate) slug: Option<Slug>,
}

impl NewPost {
    pub(crate) fn check(self) -> Result<Draft, Problem> {
        let mut errors = FieldErrors::new();
        let content = PostContent {
            title: errors.check("title", required(self.title)),
            content: errors.check("content", required(self.content)),
            summary: errors.check("summary", Summary::try_from(self.summary.unwrap_or_default())),
            tags: check_tags(&mut errors, self.tags.unwrap_or_default()),
        };
        let slug = check_slug(&mut errors, self.slug.as_deref());
        errors.finish()?;
        Ok(Draft { content, slug, publish: self.status != Some(FirstStatus::Draft) })
    }
}

impl Article {
    pub(crate) fn check(self) -> Result<Draft, Problem> {
        NewPost { title: self.title, content: self.content, ..NewPost::default() }.check()
    }
}

impl Patch {
    pub(crate) fn check(self) -> Result<Revision, Problem> {
        let mut errors = FieldErrors::new();
        let changes = PostChanges {
            title: errors.check("title", optional(self.title)),
            content: errors.check("content", optional(self.content)),
            summary: errors.check("summary", optional(self.summary)),
            tags: self.tags.map(|tags| check_tags(&mut errors, tags)),
        };
        let slug = check_slug(&mut errors, self.slug.as_deref());
        errors.finish()?;
        Ok(Revision { changes, slug })
    }
}

fn required<T: TryFrom<String, Error = Invalid>>(text: Option<String>) -> Result<T, Invalid> {
    text.ok_or(Invalid { code: "missing", message: "is required".into() })?.try_into()
}

fn optional<T: TryFrom<String, Error = Invalid>>(
    text: Option<String>,
) -> Result<Option<T>, Invalid> {
    text.map(T::try_from).transpose()
}

fn check_slug(errors: &mut FieldErrors, text: Option<&str>) -> Option<Slug> {
    errors.check("slug", text.map(str::parse).transpose())
}

/// Tags in the order given; of those that make the same slug, the first.
fn check_tags(errors: &mut FieldErrors, texts: Vec<String>) -> Vec<Tag> {
    if texts.len() > MAX_TAGS {
        let message = format!("must have at most {MAX_TAGS} items").into();
        return errors.check("tags", Err(Invalid { code: "too_many", message }));
    }
    let mut tags = vec![];
    for (index, text) in texts.into_iter().enumerate() {
        let tag = errors.check(&format!("tags.{index}"), Tag::try_from(text));
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(json: D) -> Result<Option<T>, D::Error> {
    T::deserialize(json).map(Some)
}

/// `null` stands for what is empty.
fn given_or_null<'de, T, D>(json: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::deserialize(json).map(Option::unwrap_or_default).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn a_post_is_published_unless_it_is_to_be_a_draft() {
        let draft = |status: Value| {
            let body = json!({ "title": "a", "content": "b", "status": status });
            from_value::<NewPost>(body).unwrap().check().unwrap().publish
        };
        assert!(draft(Value::Null) && draft("published".into()));
        assert!(!draft("draft".into()));
    }

    #[test]
    fn tags_that_make_the_same_slug_are_one() {
        let tags = json!(["Event Sourcing", "b", "event-sourcing", "B"]);
        let body = json!({ "title": "a", "content": "b", "tags": tags });
        let draft = from_value::<NewPost>(body).unwrap().check().unwrap();
        let slugs: Vec<_> = draft.content.tags.iter().map(Tag::as_str).collect();
        assert_eq!(slugs, ["event-sourcing", "b"]);
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_clears() {
        let revision = |body: Value| from_value::<Patch>(body).unwrap().check().unwrap();
        assert!(revision(json!({})).changes.is_empty());
        let cleared = revision(json!({ "summary": null, "tags": null })).changes;
        assert_eq!((cleared.summary, cleared.tags), (Some(Summary::default()), Some(vec![])));
        for field in ["title", "content", "slug"] {
            assert!(from_value::<Patch>(json!({ field: null })).is_err());
        }
    }
}

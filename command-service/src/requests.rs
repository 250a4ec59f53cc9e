//! The bodies of requests, as clients write them, and what is read from them.
//!
//! Parsing refuses what has the wrong shape. Here the limits of each field are checked, all of them
//! before the request is refused.
//!
//! Bodies are written, too: in this canonical form requests with an `Idempotency-Key` are compared. What a body does
//! not name is left out of it, so that a field that is new does not make another request of an old one.

use domain::post::{MAX_TAGS, PostChanges, PostContent, Summary, Tag};
use domain::{Invalid, Slug};
use http_api::{FieldErrors, Problem};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// The body of `POST /posts`. Fields that must be there are optional, so that all that are missing
/// are told at once.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(description = "A post to be made")]
pub(crate) struct NewPost {
    /// 1–200 characters, after white space at its ends has been cut off
    #[schema(
        required,
        nullable = false,
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\u0000]*[^\\u0000\\s][^\\u0000]*$"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// Markdown: 0–262,144 bytes
    #[schema(required, nullable = false, max_length = 262_144, pattern = "^[^\\u0000]*$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[schema(max_length = 500, pattern = "^[^\\u0000]*$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    /// Each keeps its spelling, and is found by its slug: `C++` by `c-plus-plus`. No two may have the same slug
    #[schema(max_items = 10, min_length = 1, max_length = 40, pattern = "^[^\\u0000]*$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    /// The name in the address; without one, the title makes it. Not shaped like a UUID, not a reserved word
    #[schema(min_length = 1, max_length = 80, pattern = "^[a-z0-9]+(-[a-z0-9]+)*$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<String>,
    #[schema(inline)]
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<FirstStatus>,
}

/// The body of `POST /post`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(description = "An article to be made")]
pub(crate) struct Article {
    /// 1–200 characters, after white space at its ends has been cut off
    #[schema(
        required,
        nullable = false,
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\u0000]*[^\\u0000\\s][^\\u0000]*$"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// Markdown: 0–262,144 bytes
    #[schema(required, nullable = false, max_length = 262_144, pattern = "^[^\\u0000]*$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// The body of `PATCH /posts/{id}`: a merge patch, in which `null` removes. A post without a title,
/// a content or a slug of its choice cannot be, so there `null` is of the wrong type.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(description = "What is to be changed (RFC 7396); what is not named stays")]
pub(crate) struct Patch {
    /// 1–200 characters, after white space at its ends has been cut off
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 200,
        pattern = "^[^\\u0000]*[^\\u0000\\s][^\\u0000]*$"
    )]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// Markdown: 0–262,144 bytes
    #[schema(nullable = false, max_length = 262_144, pattern = "^[^\\u0000]*$")]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// `null` removes it
    #[schema(nullable, max_length = 500, pattern = "^[^\\u0000]*$")]
    #[serde(default, deserialize_with = "given_or_null", skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    /// All tags from now on; `null` removes them
    #[schema(nullable, max_items = 10, min_length = 1, max_length = 40, pattern = "^[^\\u0000]*$")]
    #[serde(default, deserialize_with = "given_or_null", skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    /// The name in the address from now on; earlier ones lead to it
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 80,
        pattern = "^[a-z0-9]+(-[a-z0-9]+)*$"
    )]
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    slug: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// Tags in the order given, none of them twice.
fn check_tags(errors: &mut FieldErrors, texts: Vec<String>) -> Vec<Tag> {
    if texts.len() > MAX_TAGS {
        let message = format!("must have at most {MAX_TAGS} items").into();
        return errors.check("tags", Err(Invalid { code: "too_many", message }));
    }
    let (mut tags, mut slugs) = (vec![], vec![]);
    for (index, text) in texts.into_iter().enumerate() {
        let tag = Tag::try_from(text).and_then(|tag| {
            let slug = tag.slug();
            if slugs.contains(&slug) {
                let message =
                    format!("`{}` is there already, maybe in another spelling", tag.as_str());
                return Err(Invalid { code: "duplicate", message: message.into() });
            }
            slugs.push(slug);
            Ok(tag)
        });
        tags.push(errors.check(&format!("tags.{index}"), tag));
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
    use proptest::prelude::*;
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
    fn tags_keep_their_spelling_and_order() {
        let tags = ["C++", "Event Sourcing", "C", "c#"];
        let body = json!({ "title": "a", "content": "b", "tags": tags });
        let draft = from_value::<NewPost>(body).unwrap().check().unwrap();
        let spelled: Vec<_> = draft.content.tags.iter().map(Tag::as_str).collect();
        assert_eq!(spelled, tags);
    }

    #[test]
    fn a_second_spelling_of_a_tag_is_refused() {
        for second in ["Rust", "rust", " RUST", "#rust"] {
            let body = json!({ "title": "a", "content": "b", "tags": ["rust", "b", second] });
            let refused = from_value::<NewPost>(body).unwrap().check().unwrap_err();
            let message =
                format!("`{}` is there already, maybe in another spelling", second.trim());
            let error = http_api::FieldError::new("tags.2", "duplicate", &message);
            assert_eq!(refused, Problem::validation_failed(vec![error]));
        }
    }

    proptest! {
        #[test]
        fn a_patch_says_anew_exactly_what_it_names(
            title in proptest::option::of("[a-z]{1,9}"),
            content in proptest::option::of("[a-z]{0,9}"),
            summary in proptest::option::of(proptest::option::of("[a-z]{1,9}")),
            tags in proptest::option::of(proptest::option::of(prop::collection::hash_set("[a-z]{1,9}", 0..5))),
        ) {
            let tags: Option<Option<Vec<String>>> = tags.map(|tags| tags.map(|tags| tags.into_iter().collect()));
            let mut patch = json!({});
            let fields = [
                ("title", title.clone().map(Value::from)),
                ("content", content.clone().map(Value::from)),
                ("summary", summary.clone().map(Value::from)),
                ("tags", tags.clone().map(Value::from)),
            ];
            for (field, value) in fields {
                if let Some(value) = value {
                    patch[field] = value;
                }
            }
            let changes = from_value::<Patch>(patch).unwrap().check().unwrap().changes;
            let text = |text: &str| text.to_owned();
            prop_assert_eq!(changes.title.map(|title| text(title.as_str())), title);
            prop_assert_eq!(changes.content.map(|content| text(content.as_str())), content);
            let cleared = summary.map(Option::unwrap_or_default);
            prop_assert_eq!(changes.summary.map(|summary| text(summary.as_str())), cleared);
            let named = tags.map(Option::unwrap_or_default);
            let changed = changes.tags;
            prop_assert_eq!(changed.map(|tags| tags.iter().map(|tag| text(tag.as_str())).collect()), named);
        }
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

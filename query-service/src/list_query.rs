//! Which page of which list is asked for, and how the next one is asked for.

use std::num::IntErrorKind;

use domain::post::TagSlug;
use domain::{AuthorId, Invalid};
use http_api::{FieldError, FieldErrors, Problem};
use read_model::{ListName, Place};

use crate::cursor;

pub(crate) const DEFAULT_LIMIT: usize = 20;
pub(crate) const MAX_LIMIT: usize = 100;

/// What stands behind the `?` of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListQuery {
    pub(crate) list: ListName,
    pub(crate) after: Option<Place>,
    pub(crate) limit: usize,
}

impl ListQuery {
    /// Of `GET /posts`.
    pub(crate) fn parse(parameters: Vec<(String, String)>) -> Result<Self, Problem> {
        let [limit, cursor, tag, author] = take(parameters, ["limit", "cursor", "tag", "author"])?;
        let list = match (tag, author) {
            (Some(_), Some(_)) => {
                return Err(Problem::invalid_request("`tag` and `author` do not go together"));
            }
            (None, None) => ListName::Published,
            // A slug, or a spelling as an author writes it.
            (Some(tag), None) => ListName::Tag(valid("tag", TagSlug::of(&tag))?),
            (None, Some(author)) => ListName::Author(valid("author", author.parse())?),
        };
        Self::of(list, limit, cursor)
    }

    /// Of `GET /me/posts`, asked by this author.
    pub(crate) fn parse_own(
        author: AuthorId,
        parameters: Vec<(String, String)>,
    ) -> Result<Self, Problem> {
        let [limit, cursor, status] = take(parameters, ["limit", "cursor", "status"])?;
        let list = match status.as_deref() {
            None => ListName::Own(author),
            Some("draft") => ListName::OwnDrafts(author),
            Some("published") => ListName::OwnPublished(author),
            Some(_) => {
                let message = "must be `draft` or `published`";
                let error = FieldError::new("status", "not_allowed", message);
                return Err(Problem::validation_failed(vec![error]));
            }
        };
        Self::of(list, limit, cursor)
    }

    fn of(list: ListName, limit: Option<String>, cursor: Option<String>) -> Result<Self, Problem> {
        let limit = limit.map_or(Ok(DEFAULT_LIMIT), |text| parse_limit(&text))?;
        let after = cursor.map(|cursor| {
            let place = cursor::decode(&list, &cursor);
            place.ok_or_else(|| Problem::invalid_request("the cursor is not one of this list"))
        });
        Ok(Self { after: after.transpose()?, list, limit })
    }

    /// The address of the page behind a cursor of this list.
    pub(crate) fn address_of(&self, cursor: &str) -> String {
        let (path, filter) = match &self.list {
            ListName::Published => ("/posts", String::new()),
            ListName::Tag(tag) => ("/posts", format!("&tag={}", tag.as_str())),
            ListName::Author(author) => ("/posts", format!("&author={}", in_query(author))),
            ListName::Own(_) => ("/me/posts", String::new()),
            ListName::OwnDrafts(_) => ("/me/posts", "&status=draft".to_owned()),
            ListName::OwnPublished(_) => ("/me/posts", "&status=published".to_owned()),
        };
        format!("{path}?limit={}{filter}&cursor={cursor}", self.limit)
    }
}

/// The values of these parameters, each given at most once. Any other is refused: a misspelt one must not be
/// lost in silence.
fn take<const N: usize>(
    parameters: Vec<(String, String)>,
    names: [&str; N],
) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for (name, value) in parameters {
        let Some(index) = names.iter().position(|known| *known == name) else {
            return Err(Problem::invalid_request(format!("there is no parameter `{name}`")));
        };
        if values[index].replace(value).is_some() {
            return Err(Problem::invalid_request(format!("`{name}` is given more than once")));
        }
    }
    Ok(values)
}

fn parse_limit(text: &str) -> Result<usize, Problem> {
    let out_of_range = || {
        let message = format!("must be a number from 1 to {MAX_LIMIT}");
        Problem::validation_failed(vec![FieldError::new("limit", "out_of_range", &message)])
    };
    match text.parse::<i64>() {
        Ok(number) => usize::try_from(number)
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or_else(out_of_range),
        Err(error) if is_a_number_too_long(error.kind()) => Err(out_of_range()),
        Err(_) => Err(Problem::invalid_request("`limit` is not a number")),
    }
}

fn is_a_number_too_long(kind: &IntErrorKind) -> bool {
    matches!(kind, IntErrorKind::PosOverflow | IntErrorKind::NegOverflow)
}

fn valid<T>(field: &str, value: Result<T, Invalid>) -> Result<T, Problem> {
    let mut errors = FieldErrors::new();
    let value = errors.check(field, value.map(Some));
    errors.finish()?;
    value.ok_or_else(Problem::internal)
}

/// Of the characters of an author's id, only this one must not stand in a query as it is.
fn in_query(author: &AuthorId) -> String {
    author.as_str().replace('|', "%7C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_the_beginning_of_all_posts() {
        let query = ListQuery { list: ListName::Published, after: None, limit: 20 };
        assert_eq!(parse(&[]), Ok(query));
    }

    #[test]
    fn a_tag_is_asked_for_by_its_slug_or_by_a_spelling() {
        for (tag, slug) in [
            ("Event Sourcing", "event-sourcing"),
            ("event-sourcing", "event-sourcing"),
            ("C++", "c-plus-plus"),
            ("c-plus-plus", "c-plus-plus"),
        ] {
            let query = parse(&[("tag", tag)]).unwrap();
            assert_eq!(query.list, ListName::Tag(TagSlug::of(slug).unwrap()));
            let next = query.address_of("abc");
            assert_eq!(next, format!("/posts?limit=20&tag={slug}&cursor=abc"));
        }
    }

    #[test]
    fn what_cannot_be_read_is_not_lost_in_silence() {
        for (bad, status) in [
            (&[("limt", "5")][..], 400),
            (&[("limit", "5"), ("limit", "6")], 400),
            (&[("limit", "")], 400),
            (&[("limit", "ten")], 400),
            (&[("limit", "0")], 422),
            (&[("limit", "-1")], 422),
            (&[("limit", "101")], 422),
            (&[("limit", "99999999999999999999")], 422),
            (&[("tag", "a"), ("author", "b")], 400),
            (&[("tag", "")], 422),
            (&[("author", "a b")], 422),
            (&[("cursor", "")], 400),
        ] {
            assert_eq!(parse(bad).unwrap_err().status(), status, "{bad:?}");
        }
    }

    #[test]
    fn the_next_page_keeps_what_was_asked() {
        let query = parse(&[("author", "auth0|5f@x"), ("limit", "7")]).unwrap();
        assert_eq!(query.address_of("abc"), "/posts?limit=7&author=auth0%7C5f@x&cursor=abc");
    }

    #[test]
    fn ones_own_posts_are_asked_for_by_their_status() {
        for (status, list, address) in [
            (&[][..], ListName::Own(anne()), "/me/posts?limit=20&cursor=abc"),
            (
                &[("status", "draft")],
                ListName::OwnDrafts(anne()),
                "/me/posts?limit=20&status=draft&cursor=abc",
            ),
            (
                &[("status", "published")],
                ListName::OwnPublished(anne()),
                "/me/posts?limit=20&status=published&cursor=abc",
            ),
        ] {
            let query = ListQuery::parse_own(anne(), owned(status)).unwrap();
            assert_eq!((&query.list, query.address_of("abc").as_str()), (&list, address));
        }
        for (bad, status) in [
            (&[("status", "deleted")][..], 422),
            (&[("status", "")], 422),
            (&[("status", "draft"), ("status", "draft")], 400),
            (&[("author", "bob")], 400),
            (&[("limit", "0")], 422),
        ] {
            let refused = ListQuery::parse_own(anne(), owned(bad)).unwrap_err();
            assert_eq!(refused.status(), status, "{bad:?}");
        }
    }

    fn anne() -> AuthorId {
        "anne".parse().unwrap()
    }

    fn parse(parameters: &[(&str, &str)]) -> Result<ListQuery, Problem> {
        ListQuery::parse(owned(parameters))
    }

    fn owned(parameters: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        parameters.iter().map(owned).collect()
    }
}

//! Which page of which list is asked for, and how the next one is asked for.

use std::num::IntErrorKind;

use domain::post::Tag;
use domain::{AuthorId, Invalid};
use http_api::{FieldError, FieldErrors, Problem};
use read_model::{ListName, Place};

use crate::cursor;

const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 100;

/// What stands behind the `?` of `GET /posts`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListQuery {
    pub(crate) list: ListName,
    pub(crate) after: Option<Place>,
    pub(crate) limit: usize,
}

impl ListQuery {
    pub(crate) fn parse(parameters: Vec<(String, String)>) -> Result<Self, Problem> {
        let (mut limit, mut cursor, mut tag, mut author) = (None, None, None, None);
        for (name, value) in parameters {
            let given = match name.as_str() {
                "limit" => &mut limit,
                "cursor" => &mut cursor,
                "tag" => &mut tag,
                "author" => &mut author,
                // A misspelt one must not be lost in silence.
                _ => {
                    return Err(Problem::invalid_request(format!(
                        "there is no parameter `{name}`"
                    )));
                }
            };
            if given.replace(value).is_some() {
                return Err(Problem::invalid_request(format!("`{name}` is given more than once")));
            }
        }

        let limit = limit.map_or(Ok(DEFAULT_LIMIT), |text| parse_limit(&text))?;
        let list = match (tag, author) {
            (Some(_), Some(_)) => {
                return Err(Problem::invalid_request("`tag` and `author` do not go together"));
            }
            (None, None) => ListName::Published,
            // As on writing, or what was written as `C++ tips` could not be found by that name.
            (Some(tag), None) => {
                ListName::Tag(valid("tag", Tag::try_from(tag))?.as_str().to_owned())
            }
            (None, Some(author)) => ListName::Author(valid("author", author.parse())?),
        };
        let after = cursor.map(|cursor| {
            let place = cursor::decode(&list, &cursor);
            place.ok_or_else(|| Problem::invalid_request("the cursor is not one of this list"))
        });
        Ok(Self { after: after.transpose()?, list, limit })
    }

    /// The address of the page behind a cursor of this list.
    pub(crate) fn address_of(&self, cursor: &str) -> String {
        let filter = match &self.list {
            ListName::Published => String::new(),
            ListName::Tag(tag) => format!("&tag={tag}"),
            ListName::Author(author) => format!("&author={}", in_query(author)),
        };
        format!("/posts?limit={}{filter}&cursor={cursor}", self.limit)
    }
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
    fn a_tag_is_made_into_a_slug_as_on_writing() {
        let query = parse(&[("tag", "Event Sourcing")]).unwrap();
        assert_eq!(query.list, ListName::Tag("event-sourcing".to_owned()));
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

    fn parse(parameters: &[(&str, &str)]) -> Result<ListQuery, Problem> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        ListQuery::parse(parameters.iter().map(owned).collect())
    }
}

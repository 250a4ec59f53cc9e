//! Which kind of body a request has.

use axum::http::{HeaderMap, header};

use crate::Problem;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    MergePatch,
    Form,
}

impl Media {
    fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MergePatch => "application/merge-patch+json",
            Self::Form => "application/x-www-form-urlencoded",
        }
    }

    /// The kind that the headers name, if it is one of those expected.
    pub(super) fn expect(expected: &[Self], headers: &HeaderMap) -> Result<Self, Problem> {
        let named = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = named.and_then(|named| Self::named(expected, named));
        let plain = !headers.contains_key(header::CONTENT_ENCODING);
        media.filter(|_| plain).ok_or_else(|| {
            let names: Vec<_> = expected.iter().map(|media| media.name()).collect();
            let names = names.join(" or ");
            Problem::unsupported_media_type(format!("expected a body of type {names}, in UTF-8"))
        })
    }

    fn named(expected: &[Self], named: &str) -> Option<Self> {
        let (essence, parameters) = named.split_once(';').unwrap_or((named, ""));
        let in_utf8 =
            parameters.split(';').filter_map(|pair| pair.split_once('=')).all(|(name, value)| {
                let value = value.trim().trim_matches('"');
                !name.trim().eq_ignore_ascii_case("charset") || value.eq_ignore_ascii_case("utf-8")
            });
        let is = |media: &&Self| media.name().eq_ignore_ascii_case(essence.trim());
        expected.iter().find(is).copied().filter(|_| in_utf8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_known_whatever_its_case_and_parameters() {
        for good in [
            "application/json",
            "Application/JSON ; charset=UTF-8",
            "application/json;charset=\"utf-8\"; profile=x",
        ] {
            assert_eq!(Media::named(&[Media::Form, Media::Json], good), Some(Media::Json));
        }
        for bad in ["", "text/json", "application/json; charset=latin1", "application/jsonp"] {
            assert_eq!(Media::named(&[Media::Json], bad), None, "{bad} was accepted");
        }
    }
}

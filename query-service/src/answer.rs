//! What an answer with a body looks like: what caches may do with it, how fresh it is, and whether the
//! reader has it already.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use read_model::VIEW_VERSION;
use sha2::{Digest as _, Sha256};

use crate::freshness::Freshness;

/// A JSON document for a reader.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    pub(crate) etag: HeaderValue,
    pub(crate) freshness: Freshness,
    pub(crate) audience: Audience,
}

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    Everybody,
    /// It was given to somebody who said who they are or what they have seen, so that it may be theirs alone.
    OneReader,
}

impl Audience {
    pub(crate) fn cache_control(self) -> &'static str {
        match self {
            Self::Everybody => "public, max-age=0, must-revalidate",
            Self::OneReader => "private, no-store",
        }
    }
}

/// Who shows a token of either kind may be told something else, and who looks with a browser in another form.
pub(crate) const VARY: &str = "Accept, Authorization, Consistency-Token, Cookie";

/// Returns the entity tag of bytes that name no version of a post, so it must not begin with a digit.
pub(crate) fn etag_of_bytes(bytes: &[u8]) -> HeaderValue {
    let text = format!("\"v{VIEW_VERSION}-{:x}\"", Sha256::digest(bytes));
    // Letters, digits and quotes are visible ASCII.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

impl Answer {
    /// The whole answer, or 304 where the reader has it already.
    pub(crate) fn unless_known(self, known: &IfNoneMatch) -> Response {
        let headers = [
            (header::CACHE_CONTROL, self.audience.cache_control()),
            (header::VARY, VARY),
            (header::CONTENT_TYPE, "application/json"),
        ];
        let is_known = known.includes(&self.etag);
        let own = [(header::ETAG, self.etag), (Freshness::HEADER, self.freshness.to_header())];
        if is_known {
            let mut response = (StatusCode::NOT_MODIFIED, headers, own).into_response();
            response.headers_mut().remove(header::CONTENT_TYPE);
            response
        } else {
            (headers, own, Body::from(self.body)).into_response()
        }
    }
}

/// What the reader says it has (RFC 9110, section 13.1.2).
#[derive(Debug, Clone, Default)]
pub(crate) struct IfNoneMatch(Vec<HeaderValue>);

impl IfNoneMatch {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect())
    }

    /// Whether a tag of ours is among them; weak ones count too, since the same bytes are meant.
    pub(crate) fn includes(&self, etag: &HeaderValue) -> bool {
        let tags = self.0.iter().filter_map(|value| value.to_str().ok());
        // Tags of ours hold no comma, so one that was cut in two at a comma is no tag of ours.
        tags.flat_map(|tags| tags.split(','))
            .map(str::trim)
            .any(|tag| tag == "*" || *etag == tag.strip_prefix("W/").unwrap_or(tag))
    }
}

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_may_name_several_tags_strong_or_weak() {
        let etag = HeaderValue::from_static("\"4-7\"");
        for known in ["\"4-7\"", "W/\"4-7\"", "\"x\", \"4-7\"", "*", "\"x\" ,W/\"4-7\""] {
            assert!(if_none_match(known).includes(&etag), "{known}");
        }
        for other in ["", "\"4-70\"", "4-7", "\"4-8\"", "\"4\"", "w/\"4-7\""] {
            assert!(!if_none_match(other).includes(&etag), "{other}");
        }
        assert!(!IfNoneMatch::default().includes(&etag));
    }

    fn if_none_match(text: &'static str) -> IfNoneMatch {
        IfNoneMatch(vec![HeaderValue::from_static(text)])
    }
}

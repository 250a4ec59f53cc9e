//! What a client may demand of a command beside its body: `Idempotency-Key` and `If-Match`.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use domain::AuthorId;
use http_api::Problem;
use http_api::body::MAX_BODY_BYTES;
use sha2::{Digest as _, Sha256};

use crate::execute::Outcome;
use crate::store::Kept;

/// The name of the header.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Under which key the answer to a request is kept, and for what request.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    pub author: AuthorId,
    /// 1–255 visible ASCII characters.
    pub key: String,
    pub request_hash: [u8; 32],
}

/// At which versions of a post a command may be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// At any, if there is a post.
    Any,
    Versions(Vec<u64>),
}

/// The SHA-256 of a request's method, path, `If-Match` and body.
#[derive(Debug, Clone, Copy)]
struct RequestHash([u8; 32]);

impl IdempotencyKey {
    /// The key of a request of this author, if it has one.
    pub(crate) fn read(
        headers: &HeaderMap,
        extensions: &axum::http::Extensions,
        author: &AuthorId,
    ) -> Result<Option<Self>, Problem> {
        let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = given.next() else { return Ok(None) };
        let key = key.as_bytes();
        let visible = key.iter().all(|byte| (0x21..=0x7e).contains(byte));
        if given.next().is_some() || key.is_empty() || key.len() > 255 || !visible {
            let detail = "Idempotency-Key must be given once, as 1 to 255 visible ASCII characters";
            return Err(Problem::invalid_request(detail));
        }
        // Every route that can be asked with a key lies behind `hash_request`.
        let RequestHash(request_hash) = extensions.get().copied().ok_or_else(Problem::internal)?;
        let key = String::from_utf8_lossy(key).into_owned();
        Ok(Some(Self { author: author.clone(), key, request_hash }))
    }

    /// What is to be kept under it.
    pub(crate) fn keep(&self, outcome: &Outcome) -> Result<Kept, serde_json::Error> {
        Ok(Kept {
            author: self.author.clone(),
            key: self.key.clone(),
            request_hash: self.request_hash,
            answer: serde_json::to_string(outcome)?,
        })
    }
}

/// Notes what a request is, before anybody reads its body; only where it has a key.
pub(crate) async fn hash_request(request: Request, next: Next) -> Response {
    if !request.headers().contains_key(IDEMPOTENCY_KEY) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        let detail = format!("a request's body must have at most {MAX_BODY_BYTES} bytes");
        return Problem::too_large(detail).into_response();
    };
    let mut hash = Sha256::new();
    let versions = parts.headers.get_all(header::IF_MATCH).iter();
    let versions = versions.map(|value| value.as_bytes()).collect::<Vec<_>>().join(&b',');
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    for part in [method.as_bytes(), path.as_bytes(), &versions, &body] {
        // Its length before each part keeps one request from looking like another.
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    parts.extensions.insert(RequestHash(hash.finalize().into()));
    next.run(Request::from_parts(parts, Body::from(body))).await
}

impl IfMatch {
    /// What a request demands (RFC 9110, section 13.1.1), if anything. A weak tag never matches.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
        if values.peek().is_none() {
            return Ok(None);
        }
        let malformed =
            || Problem::invalid_request("If-Match must be `*` or a list of entity tags");
        let mut versions = vec![];
        for value in values {
            let text = value.to_str().map_err(|_| malformed())?;
            for tag in text.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Some(Self::Any));
                }
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                let opaque = strong.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
                let opaque = opaque.filter(|text| !text.contains('"')).ok_or_else(malformed)?;
                // A tag that is no version of ours is well formed all the same, and matches nothing.
                if let (Ok(version), true) = (opaque.parse::<u64>(), strong == tag) {
                    versions.extend((version.to_string() == opaque).then_some(version));
                }
            }
        }
        Ok(Some(Self::Versions(versions)))
    }

    pub(crate) fn includes(&self, version: u64) -> bool {
        match self {
            Self::Any => version > 0,
            Self::Versions(versions) => versions.contains(&version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_versions() {
        let read = |values: &[&str]| {
            let pair = |value: &&str| (header::IF_MATCH, value.parse().unwrap());
            IfMatch::read(&values.iter().map(pair).collect())
        };
        let versions = |list: &[u64]| Some(IfMatch::Versions(list.to_vec()));
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&["\"3\""]).unwrap(), versions(&[3]));
        assert_eq!(read(&["\"3\" , \"4\"", "\"5\""]).unwrap(), versions(&[3, 4, 5]));
        assert_eq!(read(&["*"]).unwrap(), Some(IfMatch::Any));
        for nothing in ["W/\"3\"", "\"x\"", "\"03\"", "\"+3\"", "\"\""] {
            assert_eq!(read(&[nothing]).unwrap(), versions(&[]), "{nothing}");
        }
        for bad in ["3", "\"3", "w/\"3\"", "", "\"3\",", "\"a\"b\""] {
            assert!(read(&[bad]).is_err(), "{bad} was accepted");
        }
    }
}

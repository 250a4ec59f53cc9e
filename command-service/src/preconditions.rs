//! What a client may demand of a command beside its body: `Idempotency-Key` and `If-Match`.

use std::io;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use domain::AuthorId;
use http_api::Problem;
use http_api::etag::EntityTags;
use serde::Serialize;
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

/// The key of a request whose body has not been read yet.
#[derive(Debug)]
pub(crate) struct KeyOfHead {
    author: AuthorId,
    key: String,
    hash: Sha256,
}

impl KeyOfHead {
    /// Reads the key of a request of this author, if it has one.
    pub(crate) fn read(parts: &Parts, author: &AuthorId) -> Result<Option<Self>, Problem> {
        let mut given = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = given.next() else { return Ok(None) };
        let key = key.as_bytes();
        let visible = key.iter().all(|byte| (0x21..=0x7e).contains(byte));
        if given.next().is_some() || key.is_empty() || key.len() > 255 || !visible {
            let detail = "Idempotency-Key must be given once, as 1 to 255 visible ASCII characters";
            return Err(Problem::invalid_request(detail));
        }
        let if_match = parts.headers.get_all(header::IF_MATCH).iter();
        let if_match: Vec<_> = if_match.map(HeaderValue::as_bytes).collect();
        let (method, path) = (parts.method.as_str().as_bytes(), parts.uri.path().as_bytes());
        let mut hash = Sha256::new();
        for part in [method, path, &if_match.join(&b',')] {
            // Its length before each part keeps one request from looking like another.
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        let key = String::from_utf8_lossy(key).into_owned();
        Ok(Some(Self { author: author.clone(), key, hash }))
    }

    /// Completes the key with the parsed body. The order of members, spacing and the media type of the body do not
    /// matter: a client may write the same request in another way.
    pub(crate) fn with_body(mut self, body: &impl Serialize) -> Result<IdempotencyKey, Problem> {
        serde_json::to_writer(&mut self.hash as &mut dyn io::Write, body).map_err(|error| {
            tracing::error!("A body cannot be written in its canonical form: {error}");
            Problem::internal()
        })?;
        let Self { author, key, hash } = self;
        Ok(IdempotencyKey { author, key, request_hash: hash.finalize().into() })
    }
}

impl IdempotencyKey {
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

/// Reads the versions at which a command may be carried out (RFC 9110, section 13.1.1).
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<EntityTags>, Problem> {
    EntityTags::read(headers, header::IF_MATCH).map_err(|_malformed| {
        Problem::invalid_request("If-Match must be `*` or a list of entity tags")
    })
}

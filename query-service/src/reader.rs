//! Who reads, as far as it matters to what they are told.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use domain::AuthorId;
use http_api::{Actor, Problem, consistency};

use crate::answer::Audience;
use crate::routes::Service;

#[derive(Debug)]
pub(crate) struct Reader {
    actor: Option<Actor>,
    shows_consistency_token: bool,
}

impl Reader {
    /// Whether a request is like everybody's, so that its answer may be shared.
    pub(crate) fn is_anybody(headers: &HeaderMap) -> bool {
        !headers.contains_key(header::AUTHORIZATION) && !shows_consistency_token(headers)
    }

    pub(crate) fn author(&self) -> Option<&AuthorId> {
        self.actor.as_ref().map(|actor| &actor.author_id)
    }

    pub(crate) fn audience(&self) -> Audience {
        if self.actor.is_some() || self.shows_consistency_token {
            Audience::OneReader
        } else {
            Audience::Everybody
        }
    }
}

/// Whatever the token says: one that is garbage makes the answer no worse.
fn shows_consistency_token(headers: &HeaderMap) -> bool {
    let named = |pair: &[u8]| pair.starts_with(consistency::COOKIE.as_bytes());
    headers.contains_key(consistency::HEADER)
        || headers.get_all(header::COOKIE).iter().any(|cookies| {
            cookies.as_bytes().split(|byte| *byte == b';').any(|pair| named(pair.trim_ascii()))
        })
}

impl FromRequestParts<Service> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Problem> {
        let shows_consistency_token = shows_consistency_token(&parts.headers);
        let actor =
            <Actor as OptionalFromRequestParts<Service>>::from_request_parts(parts, service);
        Ok(Self { actor: actor.await?, shows_consistency_token })
    }
}

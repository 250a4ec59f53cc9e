//! Who reads, as far as it matters to what they are told.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use domain::{AuthorId, PostId};
use http_api::{Actor, ConsistencyToken, Problem, consistency};

use crate::answer::Audience;
use crate::demand::Demand;
use crate::routes::Service;

#[derive(Debug)]
pub(crate) struct Reader {
    actor: Option<Actor>,
    shown: Shown,
    /// There is an `Authorization` header, be it of a scheme that counts as no credentials.
    has_credentials: bool,
}

impl Reader {
    /// Whether a request is like everybody's, so that its answer may be shared.
    pub(crate) fn is_anybody(headers: &HeaderMap) -> bool {
        !headers.contains_key(header::AUTHORIZATION) && !shows_consistency_token(headers)
    }

    /// Who says neither who they are nor what they have seen.
    pub(crate) fn anybody() -> Self {
        let shown = Shown { token: None, has_tried: false };
        Self { actor: None, shown, has_credentials: false }
    }

    pub(crate) fn author(&self) -> Option<&AuthorId> {
        self.actor.as_ref().map(|actor| &actor.author_id)
    }

    pub(crate) fn audience(&self) -> Audience {
        if self.has_credentials || self.shown.has_tried {
            Audience::OneReader
        } else {
            Audience::Everybody
        }
    }

    /// What the answer must not lack; `None` if they do not say what they have seen, so that nobody knows.
    pub(crate) fn demand(&self, service: &Service, id: PostId) -> Option<Demand> {
        let token = self.shown.token.as_ref()?;
        Some(Demand::of(Some(token), service.reads.partition_of(id)))
    }

    pub(crate) fn token(&self) -> Option<&ConsistencyToken> {
        self.shown.token.as_ref()
    }
}

/// The consistency token of a request.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) token: Option<ConsistencyToken>,
    /// There is a cookie at least, be it garbage: the answer is not for others.
    has_tried: bool,
}

impl FromRequestParts<Service> for Shown {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Problem> {
        let has_tried = shows_consistency_token(&parts.headers);
        let partitions = service.reads.partitions();
        let token =
            if has_tried { ConsistencyToken::shown(&parts.headers, partitions)? } else { None };
        Ok(Self { token, has_tried })
    }
}

/// Whatever the token says.
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
        let shown = Shown::from_request_parts(parts, service).await?;
        let has_credentials = parts.headers.contains_key(header::AUTHORIZATION);
        let actor =
            <Actor as OptionalFromRequestParts<Service>>::from_request_parts(parts, service);
        Ok(Self { actor: actor.await?, shown, has_credentials })
    }
}

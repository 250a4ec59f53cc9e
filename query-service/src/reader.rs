//! Who reads, as far as it matters to what they are told.

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use domain::{AuthorId, PostId};
use http_api::{Actor, ConsistencyToken, Problem, ShownToken, consistency};

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
        !headers.contains_key(header::AUTHORIZATION) && !consistency::is_shown(headers)
    }

    /// Who says neither who they are nor what they have seen.
    pub(crate) fn anybody() -> Self {
        let shown = Shown { token: ShownToken::Nothing, has_tried: false };
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
        let token = self.token()?;
        Some(Demand::of(Some(token), service.reads.partition_of(id)))
    }

    pub(crate) fn token(&self) -> Option<&ConsistencyToken> {
        self.shown.token()
    }

    /// Returns `true` if a token is shown whose promise cannot be kept, so that the response is stale.
    pub(crate) fn shows_unknown_token(&self) -> bool {
        self.shown.is_unknown()
    }
}

/// The consistency token of a request.
#[derive(Debug)]
pub(crate) struct Shown {
    token: ShownToken,
    /// There is a cookie at least, be it garbage: the answer is not for others.
    has_tried: bool,
}

impl Shown {
    pub(crate) fn token(&self) -> Option<&ConsistencyToken> {
        match &self.token {
            ShownToken::Token(token) => Some(token),
            ShownToken::Unknown | ShownToken::Nothing => None,
        }
    }

    /// Returns `true` for a token of a key or an incarnation of the store that this process does not know.
    pub(crate) fn is_unknown(&self) -> bool {
        self.token == ShownToken::Unknown
    }
}

impl FromRequestParts<Service> for Shown {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Problem> {
        let has_tried = consistency::is_shown(&parts.headers);
        Ok(Self { token: service.consistency.shown(&parts.headers)?, has_tried })
    }
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

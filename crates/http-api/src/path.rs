//! The id in an address.

use std::fmt;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use domain::{PostId, Slug};

use crate::Problem;

/// Name of a post in an address: its id, or a slug that it has or had.
#[derive(Debug, Clone)]
pub enum PostAddress {
    Id(PostId),
    Slug(Slug),
}

impl FromStr for PostAddress {
    type Err = domain::Invalid;

    fn from_str(text: &str) -> Result<Self, domain::Invalid> {
        // No slug is shaped like an id.
        text.parse().map(Self::Id).or_else(|_| text.parse().map(Self::Slug))
    }
}

impl fmt::Display for PostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Slug(slug) => slug.fmt(f),
        }
    }
}

/// The one parameter of a path. What is not even shaped like an id names nothing that exists, so it is
/// not found, as an unknown id is.
#[derive(Debug, Clone, Copy)]
pub struct PathId<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for PathId<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        text.ok()
            .and_then(|Path(text)| text.parse().ok())
            .map(Self)
            .ok_or_else(|| Problem::not_found("nothing has this id"))
    }
}

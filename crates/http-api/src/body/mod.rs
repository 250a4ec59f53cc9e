//! Reads the body of a request into a value, or says what is wrong with it.
//!
//! Bytes that cannot be read at all are 400; what can be read and does not fit is 422, with the path of
//! the field; a body of another type is 415, one that is too long 413 and one that does not arrive 408.

mod bytes;
mod explain;
mod media;

use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Problem;
use media::Media;

pub use bytes::{Refused, whole};

/// No body is longer: 1 MiB.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// `application/json`
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Json<T>(pub T);

/// `application/merge-patch+json` (RFC 7396), or `application/json` read as such.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MergePatch<T>(pub T);

/// `application/x-www-form-urlencoded` or `application/json`
#[derive(Debug, Clone, Copy, Serialize)]
pub struct FormOrJson<T>(pub T);

/// No body, or an empty object of `application/json`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EmptyBody;

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        read(request, &[Media::Json]).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for MergePatch<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        read(request, &[Media::MergePatch, Media::Json]).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for FormOrJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        read(request, &[Media::Form, Media::Json]).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for EmptyBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}

        let media = Media::expect(&[Media::Json], request.headers());
        let bytes = whole(request.into_body()).await?;
        if !bytes.is_empty() {
            media?;
            let Empty {} = json(&bytes)?;
        }
        Ok(Self)
    }
}

async fn read<T: DeserializeOwned>(request: Request, expected: &[Media]) -> Result<T, Problem> {
    let media = Media::expect(expected, request.headers())?;
    let bytes = whole(request.into_body()).await?;
    match media {
        Media::Json | Media::MergePatch => json(&bytes),
        Media::Form => form(&bytes),
    }
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|_| not_utf8())?;
    // Serde would take an array as well, its items for the fields in their order.
    if !text.trim_start().starts_with('{') {
        explain::require_json(text)?;
        return Err(explain::not_an_object());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| explain::json_error(text, error))?;
    json.end().map_err(|error| explain::bad_syntax(&error))?;
    Ok(value)
}

fn form<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Whatever separates the fields of a form is ASCII, so that all of it is UTF-8 if each of them is.
    // The parser itself would put replacement characters in place of what is not.
    if percent_encoding::percent_decode(bytes).decode_utf8().is_err() {
        return Err(not_utf8());
    }
    let form = serde_urlencoded::Deserializer::new(form_urlencoded::parse(bytes));
    serde_path_to_error::deserialize(form).map_err(explain::form_error)
}

fn not_utf8() -> Problem {
    Problem::invalid_request("the body is not valid UTF-8")
}

#[cfg(test)]
mod tests;

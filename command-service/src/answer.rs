//! The answer to a command that was carried out.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::post::Status;
use domain::{Position, PostId, Slug};
use serde::Serialize;

use crate::execute::Done;

/// Where the post stands now.
#[derive(Debug)]
pub(crate) struct Accepted {
    body: Body,
    /// The address of the page, where one was made.
    location: Option<String>,
}

#[derive(Debug, Serialize)]
struct Body {
    id: PostId,
    slug: Option<Slug>,
    status: Status,
    version: u64,
    position: Position,
}

impl Accepted {
    pub(crate) fn changed(id: PostId, done: &Done) -> Self {
        let body = Body {
            id,
            slug: done.post.slug().cloned(),
            status: done.post.status(),
            version: done.version,
            position: done.position,
        };
        Self { body, location: None }
    }

    pub(crate) fn created(id: PostId, done: &Done, public_url: &str) -> Self {
        let published = done.post.slug().filter(|_| done.post.status() == Status::Published);
        // A draft has no page under its slug; its author reads it by its id.
        let name = published.map_or_else(|| id.to_string(), Slug::to_string);
        let location = Some(format!("{public_url}/posts/{name}"));
        Self { location, ..Self::changed(id, done) }
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let status = if self.location.is_some() { StatusCode::CREATED } else { StatusCode::OK };
        let version = format!("\"{}\"", self.body.version);
        let mut response = (status, [(header::ETAG, version)], Json(self.body)).into_response();
        // The address consists of a setting that was checked and an id or slug: all of it ASCII.
        let location = self.location.and_then(|url| HeaderValue::try_from(url).ok());
        response.headers_mut().extend(location.map(|url| (header::LOCATION, url)));
        response
    }
}

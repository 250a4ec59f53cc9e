//! Refusals as pages, for those who asked for a page.

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;

use super::mark_as_page;
use super::view::Refusal;
use crate::accept::{Form, vary_by_form};

/// Makes a page of each problem document, with the same status and headers.
pub(crate) async fn problems_as_pages(request: Request, next: Next) -> Response {
    let form = Form::wanted(request.headers());
    let mut answer = next.run(request).await;
    if !is_problem(&answer) {
        return answer;
    }
    vary_by_form(answer.headers_mut());
    match form {
        Form::Json => answer,
        Form::Html => page(answer).await,
    }
}

pub(crate) fn is_problem(answer: &Response) -> bool {
    let media_type = answer.headers().get(header::CONTENT_TYPE);
    media_type.is_some_and(|media_type| media_type == "application/problem+json")
}

async fn page(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    // Empty for a HEAD, and then nobody sees what is made of it.
    let document = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let detail = serde_json::from_slice(&document)
        .map_or_else(|_| String::new(), |Document { detail }| detail);
    let page = Refusal::new(parts.status, &detail).rendered().unwrap_or_default();
    parts.headers.remove(header::CONTENT_LENGTH);
    mark_as_page(&mut parts.headers);
    Response::from_parts(parts, Body::from(page))
}

#[derive(Deserialize)]
struct Document {
    detail: String,
}

//! Posts and lists of them as pages for people.
//!
//! A page is made from the very answer that a program would get, so who may see what, where a post has gone and
//! how fresh all is are decided in one place.

mod assets;
mod problems;
mod view;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::handler::Handler as _;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use http_api::Problem;
use read_model::PostCard;
use serde::Deserialize;

use crate::accept::Form;
use crate::answer::{IfNoneMatch, etag_of_bytes};
use crate::routes::Service;
use crate::{lists, posts};

pub(crate) use assets::asset;
pub(crate) use problems::{is_problem, problems_as_pages};
use view::{Post, Posts};

/// What a page may load: our style sheet, and pictures from anywhere. No script at all, not even ours.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' https: http:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// `GET /`: a redirect that is not for good, since something may stand here one day.
pub(crate) async fn root() -> Response {
    (StatusCode::FOUND, [(header::LOCATION, "/posts")]).into_response()
}

/// `GET /posts/{slug or id}`
pub(crate) async fn page(
    State(service): State<Service>,
    form: Form,
    known: IfNoneMatch,
    request: Request,
) -> Result<Response, Problem> {
    match form {
        Form::Json => Ok(posts::page.call(request, service).await),
        Form::Html => {
            let answer = posts::page.call(unconditional(request), service.clone()).await;
            as_page(answer, &known, async |json, headers| post(&service, &json, &headers).await)
                .await
        }
    }
}

/// `GET /posts`
pub(crate) async fn list(
    State(service): State<Service>,
    form: Form,
    known: IfNoneMatch,
    uri: Uri,
    request: Request,
) -> Result<Response, Problem> {
    match form {
        Form::Json => Ok(lists::posts.call(request, service).await),
        Form::Html => {
            let answer = lists::posts.call(unconditional(request), service.clone()).await;
            let query = uri.query().unwrap_or("");
            as_page(answer, &known, async |json, headers| {
                let Cards { items } = read(&json)?;
                Posts::new(&service.site, &items, query, next(&headers)).rendered()
            })
            .await
        }
    }
}

async fn post(service: &Service, json: &[u8], headers: &HeaderMap) -> Result<String, Problem> {
    let card: PostCard = read(json)?;
    let kept = service.reads.kept_texts(std::slice::from_ref(&card)).await.pop().flatten();
    let text = match kept {
        Some(text) => text,
        None => {
            let etag = headers.get(header::ETAG).ok_or_else(Problem::internal)?;
            service.reads.rendered(card.id, etag, read::<Text>(json)?.content).await?
        }
    };
    Post::new(&service.site, &card, &String::from_utf8_lossy(&text)).rendered()
}

/// What stands in an answer beside its card.
#[derive(Deserialize)]
struct Text {
    content: String,
}

#[derive(Deserialize)]
struct Cards {
    items: Vec<PostCard>,
}

/// An answer of ours, read back.
fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(json).map_err(|error| {
        tracing::error!("An answer cannot be made into a page: {error}");
        Problem::internal()
    })
}

/// What the reader has is a page. It is compared with the page, once that is made.
fn unconditional(mut request: Request) -> Request {
    request.headers_mut().remove(header::IF_NONE_MATCH);
    request
}

/// Puts a page in place of the JSON of a good answer, and leaves all that its headers say. Redirects stay what they
/// are; refusals are made into pages further out.
async fn as_page(
    answer: Response,
    known: &IfNoneMatch,
    make: impl AsyncFnOnce(Bytes, HeaderMap) -> Result<String, Problem>,
) -> Result<Response, Problem> {
    if answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let (mut parts, body) = answer.into_parts();
    let json = to_bytes(body, usize::MAX).await.map_err(|_| Problem::internal())?;
    let page = make(json, parts.headers.clone()).await?;
    let etag = etag_of_bytes(page.as_bytes());
    let is_known = known.includes(&etag);
    parts.headers.insert(header::ETAG, etag);
    parts.headers.remove(header::CONTENT_LENGTH);
    if is_known {
        parts.headers.remove(header::CONTENT_TYPE);
        parts.status = StatusCode::NOT_MODIFIED;
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    mark_as_page(&mut parts.headers);
    Ok(Response::from_parts(parts, Body::from(page)))
}

fn mark_as_page(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // A draft's address is nobody's business.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
}

/// The address in a link to the next page.
fn next(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (address, _) = link.strip_prefix('<')?.split_once('>')?;
    Some(address.to_owned())
}

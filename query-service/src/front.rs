//! Sends pages from memory before anything is set up for a request; all else is the routes'.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::{Either, Map};
use tower::Service;

use crate::accept::Form;
use crate::answer::IfNoneMatch;
use crate::freshness::{Freshness, Source};
use crate::metrics::Hits;
use crate::page_cache::PageCache;
use crate::post::Sight;
use crate::reader::Reader;
use crate::routes::PAGE;

type Answered = Result<Response, Infallible>;

/// Stands before the routes.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    memory: PageCache,
    hits: Hits,
    routes: Router,
}

impl Front {
    pub(crate) fn new(memory: PageCache, routes: Router) -> Self {
        Self { memory, hits: Hits::of(PAGE), routes }
    }

    /// A page, if it is fresh in memory and this is all that is asked: an answer of the routes would have
    /// the same headers.
    fn hit(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response> {
        let is_head = *method == Method::HEAD;
        if !is_head && *method != Method::GET {
            return None;
        }
        let address = path.strip_prefix("/posts/")?;
        // What is said to pages of another origin depends on the origin.
        if !Reader::is_anybody(headers) || headers.contains_key(header::ORIGIN) {
            return None;
        }
        // What is kept is JSON. A page for people is made from it further in.
        if Form::wanted(headers) == Form::Html {
            return None;
        }
        // No slug is shaped like an id.
        let (id, slug) = match address.parse() {
            Ok(id) => (id, None),
            Err(_) => (self.memory.known_claim(address)?.post_id, Some(address)),
        };
        let kept = self.memory.fresh(id)?;
        let Sight::Page(page) = &kept.post.sight else { return None };
        if slug.is_some() && slug != page.slug.as_ref().map(domain::Slug::as_str) {
            return None;
        }

        let is_known = headers.contains_key(header::IF_NONE_MATCH)
            && IfNoneMatch::of(headers).includes(&page.etag);
        let mut response = Response::default();
        *response.headers_mut() = kept.headers.clone();
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(header::CONTENT_TYPE);
        } else if is_head {
            response.headers_mut().insert(header::CONTENT_LENGTH, page.body.len().into());
        } else {
            *response.body_mut() = Body::from(page.body.clone());
        }
        let age_seconds = kept.read_at.elapsed().as_secs();
        if age_seconds > 0 {
            let read = kept.post.freshness;
            let freshness = Freshness { source: Source::Memory, age_seconds, ..read };
            response.headers_mut().insert(Freshness::HEADER, freshness.to_header());
        }
        self.hits.count(is_head, is_known);
        Some(response)
    }
}

impl<B> Service<Request<B>> for Front
where
    Router: Service<Request<B>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        Ready<Answered>,
        Map<<Router as Service<Request<B>>>::Future, fn(Answered) -> Answered>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.routes.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.hit(request.method(), request.uri().path(), request.headers()) {
            Some(response) => Either::Left(ready(Ok(response))),
            None => Either::Right(self.routes.call(request).map(without_false_length)),
        }
    }
}

/// The length of an answer without a body is that of the page, if any, and axum says 0: a cache that believes
/// it would cut its copy off.
fn without_false_length(answered: Answered) -> Answered {
    answered.map(|mut response| {
        if response.status() == StatusCode::NOT_MODIFIED {
            response.headers_mut().remove(header::CONTENT_LENGTH);
        }
        response
    })
}

//! Answers who asks for a page as everybody does before any route is looked for: from memory at once, and else as
//! the route would, whose surroundings take longer than Redis. All else is the routes'.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Map};
use http_api::edge::has_valid_host;
use http_api::layers::surround_answer;
use http_api::{Edge, PostAddress as Address, RequestId};
use tower::Service;

use crate::accept::{Form, vary_by_form};
use crate::answer::IfNoneMatch;
use crate::browser::is_problem;
use crate::freshness::{Freshness, Source};
use crate::metrics::Hits;
use crate::post::Sight;
use crate::posts::page_for_everybody;
use crate::reader::Reader;
use crate::routes::{self, PAGE, store_only_what_may_be};

type Answered = Result<Response, Infallible>;

/// Stands before the routes.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    pages: Arc<Pages>,
    misses: Edge<Misses>,
}

/// What answers if memory does not.
#[derive(Debug, Clone)]
pub(crate) struct Misses {
    pages: Arc<Pages>,
    routes: Router,
}

#[derive(Debug)]
struct Pages {
    service: routes::Service,
    time_limit: Duration,
    /// What surrounds every route puts these on its answer.
    added: HeaderMap,
    hits: Hits,
}

impl Front {
    pub(crate) fn new(
        service: routes::Service,
        time_limit: Duration,
        added: HeaderMap,
        routes: Router,
    ) -> Self {
        let pages = Pages { service, time_limit, added, hits: Hits::of(PAGE) };
        let pages = Arc::new(pages);
        Self { misses: Edge::new(Misses { pages: pages.clone(), routes }), pages }
    }
}

/// What stands behind `/posts/`, if the answer to a `GET` or `HEAD` is one that everybody gets.
fn for_everybody<'a>(method: &Method, path: &'a str, headers: &HeaderMap) -> Option<&'a str> {
    if *method != Method::GET && *method != Method::HEAD {
        return None;
    }
    let address = path.strip_prefix("/posts/")?;
    // What is said to pages of another origin depends on the origin.
    if !Reader::is_anybody(headers) || headers.contains_key(header::ORIGIN) {
        return None;
    }
    // What is kept is JSON. A page for people is made from it further in.
    (Form::wanted(headers) == Form::Json).then_some(address)
}

impl Pages {
    /// A page, if it is fresh in memory: an answer of the routes would have the same headers.
    fn hit(&self, is_head: bool, address: &str, headers: &HeaderMap) -> Option<Response> {
        let memory = &self.service.memory;
        // No slug is shaped like an id.
        let (id, slug) = match address.parse() {
            Ok(id) => (id, None),
            Err(_) => (memory.known_claim(address)?.post_id, Some(address)),
        };
        let kept = memory.fresh(id)?;
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
        self.hits.count_hit(is_head, is_known);
        Some(response)
    }

    /// What the route would answer to a `GET`, in the same surroundings.
    async fn answer(self: Arc<Self>, address: Address, uri: Uri, known: IfNoneMatch) -> Response {
        let begun = Instant::now();
        // Pinned here, so that it is not moved from one surrounding to the next: it is large.
        let answer = pin!(page_for_everybody(&self.service, address, &uri, &known));
        let mut response = surround_answer(answer, self.time_limit, &self.added).await;
        self.hits.count_answer(response.status(), begun.elapsed());
        if is_problem(&response) {
            vary_by_form(response.headers_mut());
        }
        store_only_what_may_be(response)
    }
}

impl<B> Service<Request<B>> for Front
where
    Router: Service<Request<B>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Answered>, <Edge<Misses> as Service<Request<B>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.misses.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, headers) = (request.method(), request.headers());
        if let Some(address) = for_everybody(method, request.uri().path(), headers)
            && has_valid_host(&request)
            && let Some(mut response) = self.pages.hit(*method == Method::HEAD, address, headers)
        {
            // Nothing is logged of a hit, so only an id of the client's own is of use to anyone.
            if let Some(id) = RequestId::shown(headers) {
                id.put_on(response.headers_mut());
            }
            return Either::Left(ready(Ok(response)));
        }
        Either::Right(self.misses.call(request))
    }
}

impl<B> Service<Request<B>> for Misses
where
    Router: Service<Request<B>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        BoxFuture<'static, Answered>,
        Map<<Router as Service<Request<B>>>::Future, fn(Answered) -> Answered>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.routes.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, headers) = (request.method(), request.headers());
        if *method == Method::GET
            && let Some(address) = for_everybody(method, request.uri().path(), headers)
            && let Ok(address) = address.parse()
        {
            let (uri, known) = (request.uri().clone(), IfNoneMatch::of(headers));
            let answer = self.pages.clone().answer(address, uri, known);
            return Either::Left(answer.map(Ok).boxed());
        }
        Either::Right(self.routes.call(request).map(without_false_length))
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

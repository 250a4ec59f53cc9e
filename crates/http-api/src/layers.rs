//! Layers around every handler: a limit on time, problem documents for refusals, and metrics.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use metrics::{Label, SharedString};
use service_runtime::{Metric, MetricKind};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{CorsArgs, Problem};

/// Metrics of every HTTP service, except those of its connections.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "http_requests_total",
        kind: MetricKind::Counter,
        labels: &["route", "method", "status"],
        help: "Requests that were answered",
    },
    Metric {
        name: "http_request_duration_seconds",
        kind: MetricKind::Histogram,
        labels: &["route", "method", "status"],
        help: "From the head of a request to the head of its answer",
    },
];

/// Puts the same surroundings around every route. To be called once the routes are all there.
pub fn surround<S>(routes: Router<S>, time_limit: Duration, cors: &CorsArgs) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let routes = routes
        .fallback(async || Problem::not_found("there is nothing at this address"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(from_fn_with_state(time_limit, limit_time))
        .layer(CatchPanicLayer::custom(answer_for_panic));
    // A page of another origin may read refusals, too.
    let routes = match cors.layer() {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    routes.layer(from_fn(forbid_sniffing)).layer(from_fn(count))
}

/// What these surroundings put on the answer to a request that names no origin: always the same, so that it
/// can be known without asking.
pub fn added_headers(cors: &CorsArgs) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(cors) = cors.layer() {
        let nothing =
            service_fn(async |_: Request| Ok::<Response, Infallible>(Response::default()));
        // Nobody is waited for, so it answers at once.
        let answer = cors.layer(nothing).oneshot(Request::default()).now_or_never();
        if let Some(Ok(answer)) = answer {
            headers.extend(answer.into_parts().0.headers);
        }
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    headers
}

/// The same around one answer that is given before any route is looked for, to a request that names no origin and
/// has no body: a limit on its time, an answer for a panic, and the headers that are [added](added_headers).
/// It is to be [counted](count_answer), too.
pub async fn surround_answer(
    answer: impl Future<Output = Response>,
    time_limit: Duration,
    added: &HeaderMap,
) -> Response {
    let answer = AssertUnwindSafe(tokio::time::timeout(time_limit, answer)).catch_unwind();
    let mut response = match answer.await {
        Ok(Ok(response)) => response,
        Ok(Err(_elapsed)) => took_too_long(),
        Err(panic) => answer_for_panic(panic),
    };
    for (name, value) in added {
        response.headers_mut().append(name, value.clone());
    }
    response
}

const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

/// Time at which a request is ended, in its extensions. A handler whose outcome must not be lost
/// answers earlier.
#[derive(Debug, Clone, Copy)]
pub struct RequestDeadline(pub Instant);

/// Ends a request that takes too long.
async fn limit_time(State(limit): State<Duration>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(RequestDeadline(Instant::now() + limit));
    let answer = tokio::time::timeout(limit, next.run(request)).await;
    answer.unwrap_or_else(|_elapsed| took_too_long())
}

fn took_too_long() -> Response {
    Problem::unavailable("the request took too long", 1).into_response()
}

fn answer_for_panic(_panic: Box<dyn Any + Send>) -> Response {
    // What happened has been printed where it happened.
    Problem::internal().into_response()
}

/// Keeps browsers from guessing that what somebody wrote might be a page or a script.
async fn forbid_sniffing(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

/// Counts requests and their time by route. Routes and methods that are not ours share one name, lest
/// strangers invent numbers without end.
async fn count(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>();
    let route = path.map_or("none", MatchedPath::as_str).to_owned();
    let method = known(request.method());
    let response = next.run(request).await;
    count_answer(route, method, response.status(), begun.elapsed());
    response
}

/// Counts an answer, and how long it took.
pub fn count_answer(
    route: impl Into<SharedString>,
    method: &'static str,
    status: StatusCode,
    took: Duration,
) {
    let status = status.as_str().to_owned();
    let labels = [
        Label::new("route", route.into()),
        Label::new("method", method),
        Label::new("status", status),
    ];
    metrics::counter!("http_requests_total", labels.iter()).increment(1);
    metrics::histogram!("http_request_duration_seconds", labels.iter()).record(took);
}

pub(crate) fn known(method: &Method) -> &'static str {
    const NAMES: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    NAMES.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::{get, post};
    use tower::ServiceExt as _;

    use super::*;
    use crate::body::MAX_BODY_BYTES;
    use crate::{Json, PathId};

    #[tokio::test]
    async fn what_no_route_takes_is_a_problem() {
        let answer = ask(Method::GET, "/nowhere", Body::empty()).await;
        expect(&answer, StatusCode::NOT_FOUND);
        let answer = ask(Method::POST, "/slow", Body::empty()).await;
        expect(&answer, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers()["allow"], "GET,HEAD");
    }

    #[tokio::test]
    async fn what_is_not_shaped_like_an_id_is_not_found() {
        expect(&ask(Method::GET, "/things/x", Body::empty()).await, StatusCode::NOT_FOUND);
        expect(&ask(Method::GET, "/things/%ff", Body::empty()).await, StatusCode::NOT_FOUND);
        assert_eq!(ask(Method::GET, "/things/7", Body::empty()).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_ended() {
        let answer = ask(Method::GET, "/slow", Body::empty()).await;
        expect(&answer, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "1");
    }

    #[tokio::test]
    async fn a_panic_is_answered() {
        let answer = ask(Method::GET, "/panic", Body::empty()).await;
        expect(&answer, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test]
    async fn a_body_has_at_most_so_many_bytes() {
        let spaces = |count| Body::from(format!("{{}}{}", " ".repeat(count - 2)));
        let answer = ask(Method::POST, "/echo", spaces(MAX_BODY_BYTES)).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = ask(Method::POST, "/echo", spaces(MAX_BODY_BYTES + 1)).await;
        expect(&answer, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn an_answer_before_all_routes_has_the_same_surroundings() {
        let (limit, added) = (Duration::from_millis(50), added_headers(&CorsArgs::default()));
        let slow = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Response::default()
        };
        let panics = async { panic!("no") };
        let slow = surround_answer(slow, limit, &added).await;
        let panicked = surround_answer(panics, limit, &added).await;
        expect(&slow, StatusCode::SERVICE_UNAVAILABLE);
        expect(&panicked, StatusCode::INTERNAL_SERVER_ERROR);
        for (answer, path) in [(slow, "/slow"), (panicked, "/panic")] {
            let mut of_route = ask(Method::GET, path, Body::empty()).await;
            // Whoever sends the other adds this, too.
            of_route.headers_mut().remove(header::CONTENT_LENGTH);
            assert_eq!(answer.headers(), of_route.headers());
        }
    }

    fn expect(answer: &Response, status: StatusCode) {
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    }

    async fn ask(method: Method, path: &str, body: Body) -> Response {
        let slow = async || tokio::time::sleep(Duration::from_secs(60)).await;
        let echo = async |Json(_): Json<serde_json::Value>| ();
        let thing = async |PathId(_): PathId<u8>| ();
        let routes = Router::new()
            .route("/slow", get(slow))
            .route("/panic", get(async || -> () { panic!("no") }))
            .route("/echo", post(echo))
            .route("/things/{id}", get(thing));
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let answer = surround(routes, Duration::from_millis(50), &CorsArgs::default())
            .oneshot(request.body(body).unwrap());
        answer.await.unwrap()
    }
}

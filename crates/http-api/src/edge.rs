//! Checks that every request passes first: its `Host`, and its id.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::{Request, Version, header};
use axum::response::{IntoResponse as _, Response};
use futures::future::{Either, Ready, ready as now};
use pin_project_lite::pin_project;
use tower::Service;
use tracing::Instrument as _;
use tracing::instrument::Instrumented;

use crate::Problem;
use crate::layers::{count_answer, known};
use crate::request_id::{RequestId, Scoped};

/// Stands before all routes of a service.
#[derive(Debug, Clone)]
pub struct Edge<S> {
    inner: S,
}

impl<S> Edge<S> {
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<B, S> Service<Request<B>> for Edge<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, Served<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let id = RequestId::of(request.headers());
        if !has_valid_host(&request) {
            return Either::Left(now(Ok(refuse_host(&request, id))));
        }
        request.extensions_mut().insert(id.clone());
        // As important as anything that may be logged for the request, so that no filter drops it alone.
        let span = tracing::error_span!("request", request.id = id.as_str());
        let answer = span.in_scope(|| self.inner.call(request));
        Either::Right(Served { answer: id.clone().scope(answer).instrument(span), id: Some(id) })
    }
}

pin_project! {
    /// A request that is being served under its id.
    #[derive(Debug)]
    pub struct Served<F> {
        #[pin]
        answer: Instrumented<Scoped<F>>,
        id: Option<RequestId>,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for Served<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.answer.poll(context));
        if let Some(id) = this.id.take() {
            id.put_on(response.headers_mut());
        }
        Poll::Ready(Ok(response))
    }
}

/// Returns `true` if a request names the host that it is meant for as it must (RFC 9112, section 3.2): once,
/// and only HTTP/1.0 may leave it out.
pub fn has_valid_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let Some(host) = hosts.next() else { return request.version() < Version::HTTP_11 };
    // A name, an address or an IPv6 address in brackets, and perhaps a port. It may be empty.
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:%[]".contains(byte);
    hosts.next().is_none() && host.as_bytes().iter().all(allowed)
}

fn refuse_host<B>(request: &Request<B>, id: RequestId) -> Response {
    let detail = "the request must have exactly one Host header, which names a host";
    let answer = || Problem::invalid_request(detail).into_response();
    let mut response = id.clone().sync_scope(answer);
    id.put_on(response.headers_mut());
    count_answer("none", known(request.method()), response.status(), Duration::ZERO);
    response
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn only_http_1_0_may_leave_out_its_host() {
        let valid = |version, hosts: &[&str]| {
            let request =
                hosts.iter().fold(Request::builder().version(version), |request, host| {
                    request.header(header::HOST, *host)
                });
            has_valid_host(&request.body(()).unwrap())
        };
        for good in ["", "blog.example", "127.0.0.1:8081", "[::1]:80", "a_b.example"] {
            assert!(valid(Version::HTTP_11, &[good]), "{good}");
            assert!(valid(Version::HTTP_10, &[good]), "{good}");
        }
        assert!(valid(Version::HTTP_10, &[]));
        for bad in [&[][..], &["a", "a"], &["a", "b"], &["a b"], &["a/b"], &["u@a"], &["ü"]] {
            assert!(!valid(Version::HTTP_11, bad), "{bad:?}");
        }
        assert!(!valid(Version::HTTP_10, &["a", "b"]));
    }

    #[tokio::test]
    async fn an_id_is_in_the_response_and_in_its_problem_document() {
        for (path, host) in [("/refused", "b"), ("/refused", ""), ("/nowhere", "b c")] {
            let (shown, document) = ask(path, host, Some("mine")).await;
            assert_eq!((shown.as_str(), &document["request_id"]), ("mine", &"mine".into()));
            let (made, document) = ask(path, host, None).await;
            assert_eq!(document["request_id"], made.as_str());
            assert!(made.parse::<uuid::Uuid>().is_ok(), "{made}");
        }
    }

    #[tokio::test]
    async fn what_is_logged_for_a_request_names_its_id() {
        let lines = Arc::<Mutex<Vec<u8>>>::default();
        let writer = Lines(lines.clone());
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter("warn")
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        let _default = tracing::subscriber::set_default(subscriber);
        let logs = async || tracing::warn!("something is odd");
        let edge = Edge::new(Router::new().route("/", get(logs)));
        let request = Request::get("/").header(header::HOST, "b").header("x-request-id", "mine");
        edge.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let lines = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(lines.contains("request{request.id=\"mine\"}"), "{lines}");
        assert!(lines.contains("something is odd"), "{lines}");
    }

    #[derive(Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The header and the document of an answer.
    async fn ask(path: &str, host: &str, id: Option<&str>) -> (String, Value) {
        let refused = async || Problem::not_found("there is nothing");
        let edge = Edge::new(Router::new().route("/refused", get(refused)));
        let request = Request::get(path).header(header::HOST, host);
        let request = match id {
            Some(id) => request.header("x-request-id", id),
            None => request,
        };
        let answer = edge.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let document = to_bytes(answer.into_body(), 10_000).await.unwrap();
        (id, serde_json::from_slice(&document).unwrap())
    }
}

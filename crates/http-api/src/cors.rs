//! Which web pages may ask: browsers let a page read answers of its own origin only, unless the answers
//! name the page's.

use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, header};
use clap::Args;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::{consistency, request_id};

/// For how long a browser need not ask again whether it may ask.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The setting that lets pages of other origins ask.
#[derive(Debug, Clone, Default, Args)]
pub struct CorsArgs {
    /// The origins whose pages may ask, separated by commas: https://blog.example.org; `*` for all of
    /// them; if unset, none but our own. Cookies are never taken from other origins
    #[arg(long, env = "INKSTREAM_CORS_ORIGINS")]
    pub cors_origins: Option<Origins>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    All,
    These(Vec<HeaderValue>),
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        text.split(',')
            .map(|origin| read_origin(origin.trim()))
            .collect::<Result<_, _>>()
            .map(Self::These)
    }
}

/// An origin as browsers write it: one that is written otherwise would never match.
fn read_origin(text: &str) -> Result<HeaderValue, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:[]".contains(c);
    host.filter(|host| !host.is_empty() && host.chars().all(allowed))
        .and_then(|_| HeaderValue::from_str(text).ok())
        .ok_or_else(|| {
            format!("expected `*` or origins such as https://blog.example.org, not `{text}`")
        })
}

impl CorsArgs {
    /// What answers preflights and adds the headers; nothing if no other origin may ask.
    pub(crate) fn layer(&self) -> Option<CorsLayer> {
        let origins = match self.cors_origins.as_ref()? {
            Origins::All => AllowOrigin::any(),
            Origins::These(origins) => AllowOrigin::list(origins.iter().cloned()),
        };
        let methods = [Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE];
        let cors = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods(methods)
            .allow_headers(request_headers())
            .expose_headers(response_headers())
            .max_age(MAX_AGE);
        Some(cors)
    }
}

fn request_headers() -> [HeaderName; 9] {
    [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        HeaderName::from_static(consistency::HEADER),
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("prefer"),
        HeaderName::from_static("traceparent"),
        request_id::HEADER,
    ]
}

fn response_headers() -> [HeaderName; 9] {
    [
        header::ETAG,
        header::LINK,
        header::LOCATION,
        header::RETRY_AFTER,
        HeaderName::from_static(consistency::HEADER),
        HeaderName::from_static("freshness"),
        HeaderName::from_static("idempotent-replayed"),
        HeaderName::from_static("preference-applied"),
        request_id::HEADER,
    ]
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::Request;
    use axum::response::Response;
    use axum::routing::post;
    use tower::ServiceExt as _;

    use super::*;
    use crate::layers::surround;

    const BLOG: &str = "https://blog.example";

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        assert_eq!("*".parse(), Ok(Origins::All));
        let two = ["https://blog.example", "http://localhost:3000"];
        let read = Origins::These(two.map(HeaderValue::from_static).to_vec());
        assert_eq!("https://blog.example, http://localhost:3000".parse(), Ok(read));
        for bad in
            ["", "blog.example", "https://", "https://Blog.example", "https://b/", "*,https://b"]
        {
            assert!(bad.parse::<Origins>().is_err(), "{bad} was accepted");
        }
    }

    #[tokio::test]
    async fn a_preflight_is_answered_where_the_page_may_ask() {
        for setting in ["*", BLOG] {
            let answer = ask(Some(setting), Method::OPTIONS, "/notes").await;
            assert_eq!(answer.status(), 200);
            let allowed = &answer.headers()["access-control-allow-origin"];
            assert_eq!(allowed, setting);
            assert_lists(&answer, "access-control-allow-methods", &["POST", "PATCH", "DELETE"]);
            let headers =
                ["authorization", "idempotency-key", "if-match", "prefer", "consistency-token"];
            assert_lists(&answer, "access-control-allow-headers", &headers);
            assert!(!answer.headers().contains_key("access-control-allow-credentials"));
        }
    }

    #[tokio::test]
    async fn answers_and_refusals_can_be_read_with_their_headers() {
        for path in ["/notes", "/nowhere"] {
            let answer = ask(Some(BLOG), Method::POST, path).await;
            assert_eq!(answer.headers()["access-control-allow-origin"], BLOG);
            let headers = ["etag", "location", "consistency-token", "freshness", "retry-after"];
            assert_lists(&answer, "access-control-expose-headers", &headers);
            assert_lists(
                &answer,
                "access-control-expose-headers",
                &["idempotent-replayed", "link"],
            );
            assert_eq!(
                answer.headers()["vary"].to_str().unwrap().split(',').next(),
                Some("origin")
            );
        }
    }

    #[tokio::test]
    async fn other_pages_are_told_nothing() {
        for setting in [None, Some("https://other.example")] {
            let answer = ask(setting, Method::POST, "/notes").await;
            assert!(!answer.headers().contains_key("access-control-allow-origin"));
        }
        assert_eq!(ask(None, Method::OPTIONS, "/notes").await.status(), 405);
    }

    fn assert_lists(answer: &Response, name: &str, expected: &[&str]) {
        let listed: Vec<_> = answer.headers()[name].to_str().unwrap().split(',').collect();
        for expected in expected {
            assert!(listed.contains(expected), "{expected} is missing from {listed:?}");
        }
    }

    async fn ask(setting: Option<&str>, method: Method, path: &str) -> Response {
        let cors = CorsArgs { cors_origins: setting.map(|text| text.parse().unwrap()) };
        let routes = Router::new().route("/notes", post(async || ()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("origin", BLOG)
            .header("access-control-request-method", "POST");
        let request = request.body(Body::empty()).unwrap();
        surround(routes, Duration::from_secs(1), &cors).oneshot(request).await.unwrap()
    }
}

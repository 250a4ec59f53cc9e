//! Somebody who reads over HTTP and looks closely.

use std::net::SocketAddr;
use std::time::Duration;

use http_api::{Actor, AuthArgs};
use reqwest::{Method, RequestBuilder, header};
use serde_json::Value;
use testkit::eventually_some;

use super::{SECRET, author};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

#[derive(Clone)]
pub(crate) struct Reader {
    client: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// An answer, as far as tests look.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: header::HeaderMap,
    pub(crate) text: String,
}

/// Asks until the answer comes from memory, which the first may or may not.
pub(crate) async fn from_memory(mut ask: impl AsyncFnMut() -> Answer) -> Answer {
    let ask_for_it = async || Some(ask().await).filter(|answer| answer.source() == "memory");
    eventually_some("it is kept in memory", ask_for_it).await
}

impl Reader {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self { client: client.build().unwrap(), base: format!("http://{address}"), token: None }
    }

    /// The same, with a token of this author's.
    pub(crate) fn as_author(&self, name: &str) -> Self {
        let args = AuthArgs { jwt_secret: Some(SECRET.to_owned()), ..AuthArgs::default() };
        let actor = Actor { author_id: author(name), name: None };
        let token = http_api::bearer::sign(&args, &actor, Duration::from_secs(3600)).unwrap();
        self.with_token(&token)
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(self.url(path))).await
    }

    /// `None` as long as there is no server.
    pub(crate) async fn try_get(&self, path: &str) -> Option<Answer> {
        let response = self.client.get(self.url(path)).send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Some(Answer { status, headers, text: response.text().await.ok()? })
    }

    pub(crate) async fn head(&self, path: &str) -> Answer {
        self.send(self.client.head(self.url(path))).await
    }

    pub(crate) async fn ask(&self, method: Method, path: &str) -> Answer {
        self.send(self.client.request(method, self.url(path))).await
    }

    pub(crate) async fn ask_with(
        &self,
        method: Method,
        path: &str,
        (name, value): (&str, &str),
    ) -> Answer {
        self.send(self.client.request(method, self.url(path)).header(name, value)).await
    }

    /// With an `If-None-Match`.
    pub(crate) async fn get_unless(&self, path: &str, etag: &str) -> Answer {
        self.get_with(path, "if-none-match", etag).await
    }

    /// With one more header.
    pub(crate) async fn get_with(&self, path: &str, name: &str, value: &str) -> Answer {
        self.send(self.client.get(self.url(path)).header(name, value)).await
    }

    /// With more headers, which may have one name.
    pub(crate) async fn get_with_all(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.client.get(self.url(path));
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        self.send(request).await
    }

    /// As a browser asks for a page.
    pub(crate) async fn browse(&self, path: &str) -> Answer {
        self.get_with(path, "accept", BROWSER).await
    }

    pub(crate) async fn browse_head(&self, path: &str) -> Answer {
        self.ask_with(Method::HEAD, path, ("accept", BROWSER)).await
    }

    /// The same, by one that has a page with this tag.
    pub(crate) async fn browse_unless(&self, path: &str, etag: &str) -> Answer {
        let request = self.client.get(self.url(path)).header(header::ACCEPT, BROWSER);
        self.send(request.header(header::IF_NONE_MATCH, etag)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, mut request: RequestBuilder) -> Answer {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.expect("the service did not answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// Empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The names in all lines of `Vary`.
    pub(crate) fn varies_by(&self, name: &str) -> bool {
        let lines = self.headers.get_all("vary").iter().map(|line| line.to_str().unwrap());
        lines.flat_map(|line| line.split(',')).any(|by| by.trim().eq_ignore_ascii_case(name))
    }

    /// What the answer was made from.
    pub(crate) fn source(&self) -> &str {
        let members = self.header("freshness").split(", ");
        members.filter_map(|member| member.strip_prefix("source=")).next().unwrap_or("")
    }

    /// In seconds, since it was read from its source.
    pub(crate) fn age(&self) -> u64 {
        let mut members = self.header("freshness").split(", ");
        members.find_map(|member| member.strip_prefix("age=")).unwrap().parse().unwrap()
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.header("freshness").ends_with(", stale")
    }

    /// The `code` of a problem document, which this must be.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert!(problem["detail"].is_string(), "{self:?}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

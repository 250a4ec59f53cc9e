//! Those who read: from a query service, with a token or without.

use reqwest::RequestBuilder;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::author::Post;

/// Somebody who reads.
#[derive(Debug, Clone)]
pub struct Reader {
    client: reqwest::Client,
    service: String,
    token: Option<String>,
    consistency: Option<String>,
}

/// An answer of any service. Redirects are answers too.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// Its text as a string if it is not JSON.
    pub body: Value,
}

/// A whole list, from its first page to its last.
#[derive(Debug)]
pub struct List {
    pub cards: Vec<Value>,
    pub pages: usize,
    /// Some page of it said that it may lack something.
    pub stale: bool,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> reqwest::Result<Self> {
        let answer = request.send().await?;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let text = answer.bytes().await?;
        let body = serde_json::from_slice(&text);
        let body = body.unwrap_or_else(|_| String::from_utf8_lossy(&text).into());
        Ok(Self { status, headers, body })
    }

    /// A header, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Whether it says of itself that it may be behind.
    pub fn is_stale(&self) -> bool {
        self.header("freshness").ends_with("stale")
    }

    /// Whether it came from `memory`, `redis` or the `log`.
    pub fn is_from(&self, source: &str) -> bool {
        self.header("freshness").contains(&format!("source={source},"))
    }
}

impl List {
    pub fn ids(&self) -> Vec<&str> {
        self.texts("id")
    }

    pub fn titles(&self) -> Vec<&str> {
        self.texts("title")
    }

    fn texts(&self, member: &str) -> Vec<&str> {
        self.cards.iter().map(|card| card[member].as_str().unwrap_or_default()).collect()
    }
}

impl Reader {
    pub(crate) fn new(client: reqwest::Client, service: String) -> Self {
        Self { client, service, token: None, consistency: None }
    }

    pub(crate) fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// The same, who shows a consistency token.
    #[must_use]
    pub fn showing(self, token: &str) -> Self {
        Self { consistency: Some(token.to_owned()), ..self }
    }

    /// # Panics
    ///
    /// If there is no answer at all.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.expect("the query service did not answer")
    }

    pub async fn try_get(&self, path: &str) -> reqwest::Result<Answer> {
        Answer::of(self.asking(path)).await
    }

    /// As a browser asks.
    pub async fn try_browse(&self, path: &str) -> reqwest::Result<Answer> {
        Answer::of(self.asking(path).header("accept", "text/html,*/*;q=0.8")).await
    }

    fn asking(&self, path: &str) -> RequestBuilder {
        let request = self.client.get(format!("{}{path}", self.service));
        let request = match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        match &self.consistency {
            Some(token) => request.header("consistency-token", token),
            None => request,
        }
    }

    /// `GET /posts/{slug or id}`
    ///
    /// # Panics
    ///
    /// If there is no answer at all.
    pub async fn page(&self, address: &str) -> Answer {
        self.get(&format!("/posts/{address}")).await
    }

    /// Whether a post can be read, by its slug and by its id, with the title and text it has.
    ///
    /// # Panics
    ///
    /// If there is no answer at all.
    pub async fn can_read(&self, post: &Post) -> bool {
        let by_slug = self.page(post.slug()).await;
        let by_id = self.page(&post.id).await;
        post.is_shown_by(&by_slug) && post.is_shown_by(&by_id)
    }

    /// Reads a list from its beginning to its end, so many at a time; `None` if a part of it cannot be had
    /// now. `which` is empty or begins with `&`: `&tag=rust`.
    ///
    /// # Panics
    ///
    /// If there is no answer at all, or the list has no end.
    pub async fn list(&self, which: &str, limit: usize) -> Option<List> {
        let mut list = List { cards: vec![], pages: 0, stale: false };
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("/posts?limit={limit}{which}{cursor}")).await;
            assert!(matches!(page.status, 200 | 503), "{page:?}");
            if page.status == 503 {
                return None;
            }
            list.stale |= page.is_stale();
            list.cards.extend(page.body["items"].as_array().expect("no list").iter().cloned());
            list.pages += 1;
            assert!(list.pages < 1000, "the list goes round in circles");
            match page.body["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Some(list),
            }
        }
    }

    /// Whether a list has a post in it.
    ///
    /// # Panics
    ///
    /// If there is no answer at all.
    pub async fn finds(&self, post: &Post, which: &str) -> bool {
        let list = self.list(which, 100).await;
        list.is_some_and(|list| list.ids().contains(&post.id.as_str()))
    }
}

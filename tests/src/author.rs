//! Those who write: each command is a request to a command service.

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::reader::{Answer, Reader};

/// How often, and after what pause, a patient author asks again.
const ATTEMPTS: usize = 60;
const PAUSE: Duration = Duration::from_secs(1);

/// Somebody with a bearer token.
#[derive(Debug, Clone)]
pub struct Author {
    client: reqwest::Client,
    /// Command services; the first that can be reached is as good as any.
    services: Vec<String>,
    token: String,
    reader: Reader,
}

/// A post as its author knows it: what they wrote, and what they were told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Post {
    pub id: String,
    pub slug: Option<String>,
    pub status: String,
    pub version: u64,
    pub position: u64,
    #[serde(skip)]
    pub title: String,
}

/// What came of trying to publish.
#[derive(Debug)]
pub enum Attempt {
    Acknowledged(Post),
    /// Nobody was there to take it, so it may be tried again.
    NotSent,
    /// It was sent, and there was no answer, or one that leaves open what happened. Trying again might
    /// publish it twice.
    Unknown,
}

impl Post {
    /// # Panics
    ///
    /// If it has none.
    pub fn slug(&self) -> &str {
        self.slug.as_deref().expect("the post has no slug")
    }

    /// What all posts of that title say.
    pub fn text(title: &str) -> String {
        format!("# {title}\n\nAll that \"{title}\" has to say.")
    }

    /// Whether this is the page of it, title and text included.
    pub fn is_shown_by(&self, page: &Answer) -> bool {
        page.status == 200
            && page.body["id"] == self.id
            && page.body["title"] == self.title
            && page.body["content"] == Self::text(&self.title)
    }
}

impl Author {
    pub(crate) fn new(
        client: reqwest::Client,
        services: Vec<String>,
        token: String,
        reader: Reader,
    ) -> Self {
        Self { client, services, token, reader }
    }

    /// The same, who goes to this command service first, and to the others if it is not there.
    #[must_use]
    pub fn preferring(mut self, service: &str) -> Self {
        self.services.retain(|other| other != service);
        self.services.insert(0, service.to_owned());
        self
    }

    /// The same, reading.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Writes and publishes.
    ///
    /// # Panics
    ///
    /// If that is not done.
    pub async fn publish(&self, title: &str) -> Post {
        self.create(json!({ "title": title, "content": Post::text(title) })).await
    }

    /// Publishes, and asks again for as long as that is refused.
    ///
    /// # Panics
    ///
    /// If it always is.
    pub async fn publish_patiently(&self, title: &str) -> Post {
        let key = title.replace(' ', "-");
        for _ in 0..ATTEMPTS {
            match self.publish_with_key(&self.services[0], &key, title).await {
                Some(answer) if answer.status == 201 => return told(answer, title.to_owned()),
                _ => tokio::time::sleep(PAUSE).await,
            }
        }
        panic!("`{title}` is always refused");
    }

    /// Publishes under an `Idempotency-Key`, by one command service. `None` if it did not answer.
    pub async fn publish_with_key(&self, service: &str, key: &str, title: &str) -> Option<Answer> {
        let body = json!({ "title": title, "content": Post::text(title) });
        let request = self.request(Method::POST, service, "/posts").header("idempotency-key", key);
        Answer::of(request.json(&body)).await.ok()
    }

    /// Writes for their own eyes.
    ///
    /// # Panics
    ///
    /// If that is not done.
    pub async fn draft(&self, title: &str) -> Post {
        let body = json!({ "title": title, "content": Post::text(title), "status": "draft" });
        self.create(body).await
    }

    /// `POST /posts`
    ///
    /// # Panics
    ///
    /// If that is not done.
    pub async fn create(&self, body: Value) -> Post {
        let title = body["title"].as_str().unwrap_or_default().to_owned();
        let answer = self.command(Method::POST, "/posts", Some(body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        told(answer, title)
    }

    /// `PATCH /posts/{id}`
    ///
    /// # Panics
    ///
    /// If that is not done.
    pub async fn revise(&self, post: &Post, changes: Value) -> Post {
        let title = changes["title"].as_str().unwrap_or(&post.title).to_owned();
        self.change(Method::PATCH, post, "", Some(changes), title).await
    }

    /// `PATCH /posts/{slug}` with an `If-Match`
    ///
    /// # Panics
    ///
    /// If the service does not answer.
    pub async fn revise_if(&self, post: &Post, if_match: &str, changes: Value) -> Answer {
        let path = format!("/posts/{}", post.slug());
        let request = self.request(Method::PATCH, &self.services[0], &path).json(&changes);
        let answer = Answer::of(request.header("if-match", if_match)).await;
        answer.expect("the command service did not answer")
    }

    /// `PATCH /posts/{id}` while things may be breaking, with the consistency token of the answer; `None` if
    /// it was not acknowledged.
    ///
    /// # Panics
    ///
    /// If it is refused: nothing was wrong with it.
    pub async fn try_to_revise(&self, post: &Post, changes: Value) -> Option<(Post, String)> {
        let title = changes["title"].as_str().unwrap_or(&post.title).to_owned();
        let path = format!("/posts/{}", post.id);
        let request = self.request(Method::PATCH, &self.services[0], &path).json(&changes);
        let answer = Answer::of(request).await.ok()?;
        assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        if answer.status == 503 {
            return None;
        }
        let token = answer.header("consistency-token").to_owned();
        Some((told(answer, title), token))
    }

    /// # Panics
    ///
    /// If that is not done.
    pub async fn publish_again(&self, post: &Post) -> Post {
        self.change(Method::POST, post, "/publish", None, post.title.clone()).await
    }

    /// # Panics
    ///
    /// If that is not done.
    pub async fn unpublish(&self, post: &Post) -> Post {
        self.change(Method::POST, post, "/unpublish", None, post.title.clone()).await
    }

    /// # Panics
    ///
    /// If that is not done.
    pub async fn delete(&self, post: &Post) -> Post {
        self.change(Method::DELETE, post, "", None, post.title.clone()).await
    }

    /// `POST /post`, as a form in a browser sends it.
    ///
    /// # Panics
    ///
    /// If that is not done.
    pub async fn send_form(&self, title: &str) -> Post {
        let fields = [("title", title), ("content", &Post::text(title))];
        let request = self.request(Method::POST, &self.services[0], "/post").form(&fields);
        let answer = Answer::of(request).await.expect("the command service did not answer");
        assert_eq!(answer.status, 201, "{answer:?}");
        told(answer, title.to_owned())
    }

    /// Tries to publish while things may be breaking.
    ///
    /// # Panics
    ///
    /// If it is refused: nothing was wrong with it.
    pub async fn try_to_publish(&self, title: &str) -> Attempt {
        let body = json!({ "title": title, "content": Post::text(title) });
        for service in &self.services {
            let request = self.request(Method::POST, service, "/posts").json(&body);
            match Answer::of(request).await {
                Ok(answer) if answer.status == 201 => {
                    return Attempt::Acknowledged(told(answer, title.to_owned()));
                }
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    return Attempt::Unknown;
                }
                Err(error) if error.is_connect() => {}
                Err(_) => return Attempt::Unknown,
            }
        }
        Attempt::NotSent
    }

    async fn change(
        &self,
        method: Method,
        post: &Post,
        what: &str,
        body: Option<Value>,
        title: String,
    ) -> Post {
        let answer = self.command(method, &format!("/posts/{}{what}", post.id), body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        told(answer, title)
    }

    async fn command(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, &self.services[0], path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        Answer::of(request).await.expect("the command service did not answer")
    }

    fn request(&self, method: Method, service: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{service}{path}")).bearer_auth(&self.token)
    }
}

fn told(answer: Answer, title: String) -> Post {
    let post: Post = serde_json::from_value(answer.body).expect("the answer names no post");
    Post { title, ..post }
}

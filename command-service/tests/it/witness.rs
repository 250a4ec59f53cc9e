//! Clients who change the same few posts at random, and hold every answer against the log afterwards.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testkit::TestDatabase;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{Service, token};

const TITLES: [&str; 3] = ["One", "Two", "Three"];

/// What is asked of one post.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wish {
    Publish,
    Unpublish,
    Title(&'static str),
    Delete,
}

/// A request and its answer.
#[derive(Debug)]
struct Told {
    post: String,
    wish: Wish,
    /// By which the events of the request are known.
    trace: String,
    /// The version that it demanded.
    if_match: Option<u64>,
    /// Some request had been told of this version before this one was sent.
    at_least: u64,
    /// `None`: there was no answer that says what happened.
    answer: Option<(u16, Value)>,
}

/// A post, after one of its events.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    position: u64,
    status: &'static str,
    slug: Option<String>,
    title: String,
}

/// How often which kind of answer was given.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) recorded: usize,
    pub(crate) unchanged: usize,
    pub(crate) refused: usize,
    pub(crate) unknown: usize,
}

/// Has clients of these services send so many commands each, and holds what they are told against the log.
///
/// # Panics
///
/// If an answer is not borne out by the log.
pub(crate) async fn changes_at_random(
    services: &[&Service],
    clients: usize,
    commands: usize,
) -> Tally {
    let mut posts = vec![];
    for _ in 0..3 {
        posts.push(draft(services[0]).await);
    }
    let posts: Arc<[(String, AtomicU64)]> = posts.into();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let requests = Requests::of(services[client % services.len()]);
        tasks.spawn(change(requests, Arc::clone(&posts), commands));
    }
    let told: Vec<Told> = tasks.join_all().await.into_iter().flatten().collect();
    let log = Log::read(services[0].database()).await;
    let mut tally = Tally::default();
    for told in &told {
        log.bears_out(told, &mut tally);
    }
    tally
}

async fn draft(service: &Service) -> (String, AtomicU64) {
    loop {
        let body = json!({ "title": "One", "content": "Begin.", "status": "draft" });
        let answer = service.anne(Method::POST, "/posts").json(&body).send().await.unwrap();
        if answer.status() == 201 {
            let body: Value = answer.json().await.unwrap();
            return (body["id"].as_str().unwrap().to_owned(), AtomicU64::new(1));
        }
    }
}

async fn change(
    requests: Requests,
    posts: Arc<[(String, AtomicU64)]>,
    commands: usize,
) -> Vec<Told> {
    let mut all = vec![];
    for _ in 0..commands {
        let random = Uuid::new_v4();
        let [which, kind, condition, title, ..] = *random.as_bytes();
        let (post, known) = &posts[usize::from(which) % posts.len()];
        let wish = match kind {
            0..=99 => Wish::Publish,
            100..=199 => Wish::Unpublish,
            200..=253 => Wish::Title(TITLES[usize::from(title) % TITLES.len()]),
            // Now and then the first post ends. The others live on.
            254.. if which % 3 == 0 => Wish::Delete,
            254.. => Wish::Publish,
        };
        let at_least = known.load(Ordering::SeqCst);
        // Most who demand a version demand the one they know of, which may be the present one.
        let if_match = (condition < 40).then_some(at_least);
        let trace = format!("00-{}-b7ad6b7169203331-01", random.simple());
        let sent =
            requests.of_wish(post, wish, if_match).header("traceparent", &trace).send().await;
        let answer = match sent {
            Ok(answer) => {
                let status = answer.status().as_u16();
                answer.json::<Value>().await.ok().map(|body| (status, body))
            }
            Err(_) => None,
        };
        if answer.as_ref().is_none_or(|(status, _)| *status == 503) {
            // As `Retry-After` asks for, only that a test has less time.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if let Some((200 | 412, body)) = &answer {
            known.fetch_max(body["version"].as_u64().unwrap(), Ordering::SeqCst);
        }
        all.push(Told { post: post.clone(), wish, trace, if_match, at_least, answer });
    }
    all
}

/// What it takes to ask one service, as Anne.
struct Requests {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Requests {
    fn of(service: &Service) -> Self {
        let base = format!("http://{}", service.address());
        Self { client: reqwest::Client::new(), base, token: token("anne") }
    }

    fn of_wish(&self, post: &str, wish: Wish, if_match: Option<u64>) -> RequestBuilder {
        let url = format!("{}/posts/{post}", self.base);
        let request = match wish {
            Wish::Publish => self.client.post(format!("{url}/publish")),
            Wish::Unpublish => self.client.post(format!("{url}/unpublish")),
            Wish::Title(title) => self.client.patch(url).json(&json!({ "title": title })),
            Wish::Delete => self.client.delete(url),
        };
        let request = request.bearer_auth(&self.token);
        if_match
            .iter()
            .fold(request, |request, version| request.header("if-match", format!("\"{version}\"")))
    }
}

/// The history of every post, and which request caused which events.
struct Log {
    states: HashMap<String, Vec<State>>,
    caused: HashMap<String, Vec<(String, u64)>>,
}

impl Log {
    async fn read(database: &TestDatabase) -> Self {
        let rows: Vec<(String, i64, i64, String, Value, Option<String>)> = sqlx::query_as(
            "SELECT aggregate_id, sequence, position, event_type, payload, metadata ->> 'traceparent'
             FROM events
             ORDER BY position",
        )
        .fetch_all(&mut database.connect().await)
        .await
        .unwrap();
        let mut log = Self { states: HashMap::new(), caused: HashMap::new() };
        for ((id, sequence, position, event_type, payload, trace), expected) in
            rows.into_iter().zip(1..)
        {
            assert_eq!(position, expected, "the positions have a hole");
            let states = log.states.entry(id.clone()).or_default();
            let before = states.last().cloned().unwrap_or_default();
            states.push(before.after(position.unsigned_abs(), &event_type, &payload));
            assert_eq!(states.len(), usize::try_from(sequence).unwrap());
            log.caused
                .entry(trace.unwrap_or_default())
                .or_default()
                .push((id, sequence.unsigned_abs()));
        }
        log
    }

    fn bears_out(&self, told: &Told, tally: &mut Tally) {
        let (states, none) = (&self.states[&told.post], vec![]);
        let caused = self.caused.get(&told.trace).unwrap_or(&none);
        assert!(caused.len() <= 1, "{told:?} was recorded twice: {caused:?}");
        match &told.answer {
            Some((200, body)) => {
                let version = body["version"].as_u64().unwrap();
                assert!(version >= told.at_least, "{told:?} was answered from the past");
                let state = &states[usize::try_from(version).unwrap() - 1];
                assert_eq!(body["position"], state.position, "{told:?}");
                assert_eq!(body["status"], state.status, "{told:?}");
                assert_eq!(body["slug"], json!(state.slug), "{told:?}");
                assert!(state.fulfils(told.wish), "{told:?} is not true of {state:?}");
                match caused.as_slice() {
                    [] => tally.unchanged += 1,
                    [event] => {
                        assert_eq!(*event, (told.post.clone(), version), "{told:?}");
                        tally.recorded += 1;
                    }
                    [_, _, ..] => unreachable!("counted above"),
                }
                if let Some(demanded) = told.if_match {
                    assert_eq!(version - caused.len() as u64, demanded, "{told:?}");
                }
            }
            Some((412, body)) => {
                let version = body["version"].as_u64().unwrap();
                assert!(version >= told.at_least && version <= states.len() as u64, "{told:?}");
                assert_ne!(Some(version), told.if_match, "{told:?}");
                assert!(caused.is_empty(), "{told:?} was recorded: {caused:?}");
                tally.refused += 1;
            }
            Some((410, _)) => {
                assert_eq!(states.last().map(|state| state.status), Some("deleted"), "{told:?}");
                assert!(caused.is_empty(), "{told:?} was recorded: {caused:?}");
                tally.refused += 1;
            }
            Some((409, _)) => {
                assert!(caused.is_empty(), "{told:?} was recorded: {caused:?}");
                tally.refused += 1;
            }
            Some((503, _)) | None => tally.unknown += 1,
            Some(_) => panic!("{told:?}"),
        }
    }
}

impl State {
    fn after(self, position: u64, event_type: &str, payload: &Value) -> Self {
        // The payload is an object of one member, named like the event.
        let inner = payload.as_object().and_then(|object| object.values().next()).unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let slug = text(&inner["slug"]).or(self.slug);
        let (status, title) = match event_type {
            "post.drafted" => ("draft", text(&inner["content"]["title"])),
            "post.published" => ("published", None),
            "post.unpublished" => ("draft", None),
            "post.deleted" => ("deleted", None),
            "post.revised" => (self.status, text(&inner["changes"]["title"])),
            other => panic!("{other} is not among the commands"),
        };
        Self { position, status, slug, title: title.unwrap_or(self.title) }
    }

    fn fulfils(&self, wish: Wish) -> bool {
        match wish {
            Wish::Publish => self.status == "published",
            Wish::Unpublish => self.status == "draft",
            Wish::Title(title) => self.title == title,
            Wish::Delete => self.status == "deleted",
        }
    }
}

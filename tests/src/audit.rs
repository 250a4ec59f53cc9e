//! A look into the log: whether it holds what authors were told, and readers see what it holds.

use std::collections::{HashMap, HashSet};

use domain::post::PostEvent;
use domain::{Partitions, Position, PostId, Recorded, StoredEvent as _};
use event_log::EventLog;
use read_model::{Place, Row, StoredRow, fold_pages};
use serde_json::Value;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};
use testkit::eventually;

use crate::blog::Blog;
use crate::load::Outcome;

/// The log, whole.
#[derive(Debug)]
pub struct Log {
    pub events: Vec<Recorded<PostEvent>>,
}

impl Log {
    /// 1, 2, 3 … without a hole.
    ///
    /// # Panics
    ///
    /// If they are not.
    pub fn has_no_hole(&self) {
        let positions: Vec<u64> = self.events.iter().map(|event| event.position.0).collect();
        let dense: Vec<u64> = (1..=positions.len() as u64).collect();
        assert_eq!(positions, dense);
    }

    /// Holds each post that was acknowledged where its author was told, no post twice, and none that
    /// nobody wrote.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn bears_out(&self, outcome: &Outcome) {
        let mut written: HashMap<&str, &str> = HashMap::new();
        let mut ends: HashMap<&str, (u64, u64)> = HashMap::new();
        for event in &self.events {
            ends.insert(&event.stream_id, (event.sequence, event.position.0));
            if let Some(title) = first_title(event) {
                let before = written.insert(title, &event.stream_id);
                assert_eq!(before, None, "`{title}` was recorded twice");
            }
        }
        for post in &outcome.acknowledged {
            let title = post.title.as_str();
            assert_eq!(written.get(title), Some(&post.id.as_str()), "`{title}` is lost");
            assert_eq!(ends[post.id.as_str()], (post.version, post.position), "{post:?}");
        }
        let acknowledged = outcome.acknowledged.iter().map(|post| post.title.as_str());
        let unknown = outcome.unknown.iter().map(String::as_str);
        let asked: HashSet<&str> = acknowledged.chain(unknown).collect();
        let invented: Vec<_> = written.keys().filter(|title| !asked.contains(*title)).collect();
        assert!(invented.is_empty(), "nobody wrote {invented:?}");
    }

    /// The titles under which posts were first recorded.
    pub fn titles(&self) -> HashSet<&str> {
        self.events.iter().filter_map(first_title).collect()
    }

    /// What the log gives, folded anew: the pages of all published posts, latest first.
    fn published(&self) -> Vec<(PostId, Value)> {
        let rows = fold_pages(&self.events);
        let mut places: Vec<(Place, Row)> =
            rows.into_values().filter_map(|row| Some((place(&row)?, row))).collect();
        places.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        places.into_iter().map(|(place, row)| (place.post_id, json(&row))).collect()
    }
}

impl Blog {
    /// # Panics
    ///
    /// If Postgres does not answer.
    pub async fn log(&self) -> Log {
        let pool = PgPoolOptions::new().max_connections(1).connect(&self.ground.database_url).await;
        let pool = pool.expect("Postgres did not answer");
        // Reading the whole log asks for no partition.
        let reading = EventLog::new(pool.clone(), Partitions::new(1).expect("one is a number"));
        let mut events: Vec<Recorded<PostEvent>> = vec![];
        loop {
            let after = events.last().map_or(Position::ZERO, |event| event.position);
            let more = reading.read_after(after, 1000).await.expect("the log cannot be read");
            if more.is_empty() {
                pool.close().await;
                return Log { events };
            }
            let decoded = more.into_iter().map(|(_, event)| PostEvent::decode(event));
            events.extend(decoded.map(|event| event.expect("an event that is not ours")));
        }
    }

    /// Demands that nothing acknowledged is lost, that nothing was recorded twice, and that readers see
    /// what the log holds: each post by its slug and its id, and once in the list.
    ///
    /// # Panics
    ///
    /// If that is not so, in the end.
    pub async fn has_kept_its_word(&self, outcome: &Outcome) {
        let log = self.log().await;
        log.has_no_hole();
        log.bears_out(outcome);
        // First, since reading a page puts it into the lists where it was missing from them.
        self.agrees_with(&log).await;
        let reader = self.reader();
        for post in &outcome.acknowledged {
            assert!(reader.can_read(post).await, "{post:?} cannot be read");
        }
        self.has_carried_all_to_kafka().await;
    }

    /// Waits until the list has all that is published in the log and nothing else, and says so; then
    /// demands that the views hold every page as the log gives it.
    ///
    /// # Panics
    ///
    /// If that is not so, in the end.
    pub async fn agrees_with(&self, log: &Log) {
        // Who says who they are is told nothing from memory.
        let auditor = self.sign_up("auditor");
        let reader = auditor.reader();
        let views = self.views();
        let published = log.published();
        let ids: Vec<String> = published.iter().map(|(id, _)| id.to_string()).collect();
        let mut seen = None;
        eventually("the list is complete", async || {
            seen = reader.list("", 100).await;
            seen.as_ref().is_some_and(|list| !list.stale && list.ids() == ids)
        })
        .await;
        let mut cards = seen.map(|list| list.cards).unwrap_or_default().into_iter();
        for (id, expected) in published {
            // Before it is read, which would put it there.
            let found = views.row(id).await.expect("Redis did not answer");
            let is_there = found.watermark.is_some() && found.row.is_some();
            assert!(is_there, "the list is complete and the page of {id} is not there");
            let page = reader.page(&id.to_string()).await;
            assert_eq!(page.body, expected);
            let mut card = expected;
            card.as_object_mut().and_then(|card| card.remove("content"));
            assert_eq!(cards.next(), Some(card));
        }
    }

    /// Waits until nothing is left to be carried.
    ///
    /// # Panics
    ///
    /// If Postgres does not answer, or something stays behind.
    pub async fn has_carried_all_to_kafka(&self) {
        let all = async || self.outbox().await == 0;
        eventually("the relay has carried the whole log to Kafka", all).await;
    }

    /// How many events Kafka has not got yet.
    ///
    /// # Panics
    ///
    /// If Postgres does not answer.
    pub async fn outbox(&self) -> i64 {
        let mut postgres = self.postgres().await;
        let waiting = sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&mut postgres);
        waiting.await.expect("Postgres did not answer")
    }

    /// A connection to the store, to look or to stand in the way.
    ///
    /// # Panics
    ///
    /// If Postgres does not answer.
    pub async fn postgres(&self) -> PgConnection {
        PgConnection::connect(&self.ground.database_url).await.expect("Postgres did not answer")
    }
}

fn first_title(event: &Recorded<PostEvent>) -> Option<&str> {
    match &event.payload {
        PostEvent::Drafted { content, .. } => Some(content.title.as_str()),
        PostEvent::Published { .. }
        | PostEvent::Revised { .. }
        | PostEvent::Unpublished {}
        | PostEvent::Deleted {} => None,
    }
}

fn place(row: &Row) -> Option<Place> {
    let card = &row.page.as_ref()?.card;
    let published = card.status == domain::post::Status::Published;
    Some(Place::new(card.published_at.filter(|_| published)?, card.id))
}

fn json(row: &Row) -> Value {
    let stored = StoredRow::try_from(row).expect("a row that is no JSON");
    let page = stored.page.expect("a published post has a page");
    serde_json::from_slice(&page.to_json()).expect("a page that is no JSON")
}

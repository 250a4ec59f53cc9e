//! `projector show`: a page as it was at some time, folded from the log.

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use domain::{Position, PostId, Slug};
use event_log::{EventLog, Reading};
use read_model::{StoredRow, fold_histories};
use serde_json::{Value, json};

/// A moment in the history of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After the event at this position.
    Position(Position),
    /// By the store's clock.
    Time(DateTime<Utc>),
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(position) = text.parse() {
            return Ok(Self::Position(Position(position)));
        }
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| {
            "expected a position, or a time such as 2026-05-04T03:02:01Z".to_owned()
        })?;
        Ok(Self::Time(time.to_utc()))
    }
}

/// The page of a post as it was then, as readers would have been shown it, with what it was made from.
pub async fn page(log: &EventLog, post: &str, at: Option<Moment>) -> anyhow::Result<Value> {
    let id: PostId = match post.parse() {
        Ok(id) => id,
        Err(_) => {
            let claim = log.claim_of(&Slug::recorded(post.to_owned())).await?;
            claim.with_context(|| format!("no post is, or was ever, called `{post}`"))?.post_id
        }
    };
    let mut events = log.pages(&[id]).await?.events;
    if events.is_empty() {
        bail!("there is no post {id}");
    }
    // All up to the last one, without a gap: a clock that was ahead leaves times out of order.
    let last = events.iter().rposition(|event| match at {
        None => true,
        Some(Moment::Position(position)) => event.position <= position,
        Some(Moment::Time(time)) => event.recorded_at <= time,
    });
    events.truncate(last.map_or(0, |last| last + 1));
    let mut read = vec![];
    for event in log.read(events).await? {
        let event = event.try_map(|reading| match reading {
            Reading::Event(event) => Ok(Some(event)),
            Reading::Discarded => Ok(None),
            Reading::Unreadable(error) => Err(error),
        });
        read.push(event.context("an event of it cannot be folded")?);
    }
    let events = read;
    let Some(last) = events.last() else {
        return Ok(json!({"id": id, "state": "not written yet"}));
    };
    let (version, recorded_at) = (last.sequence, last.recorded_at);
    let row = fold_histories(events).remove(&id).context("it has no row")?;
    let mut shown = json!({
        "id": id,
        "position": row.position.0,
        "version": version,
        "recorded_at": recorded_at,
    });
    match StoredRow::try_from(&row)?.page {
        None => shown["state"] = json!("deleted"),
        Some(page) => {
            shown["state"] = json!(if page.published { "published" } else { "draft" });
            shown["page"] = serde_json::from_slice(&page.to_json())?;
        }
    }
    Ok(shown)
}

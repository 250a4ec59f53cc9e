//! Stored events as far as this program can read them: without those that an operator has discarded, and with
//! a word on each page that ends early.

use std::collections::HashSet;

use anyhow::Context;
use domain::post::PostEvent;
use domain::{Position, PostId, RawEvent, Recorded, StoredEvent as _, Undecodable};

use crate::log::{EventLog, Pages};

/// What became of reading a stored event.
#[derive(Debug)]
pub enum Reading {
    Event(PostEvent),
    /// It cannot be read, and an operator has accepted that: nothing comes of it, for good.
    Discarded,
    Unreadable(Undecodable),
}

/// The whole history of some pages, as of one moment, as far as it can be read.
#[derive(Debug)]
pub struct Histories {
    /// No event of these pages at or below this position is missing, but for those behind an unreadable one.
    pub as_of: Position,
    /// Page by page, each in the order of its sequence. `None` is an event that was discarded: nothing comes
    /// of it, but its page has come past it.
    pub events: Vec<Recorded<Option<PostEvent>>>,
    /// Where pages end early, once at most for each.
    pub unreadable: Vec<Unreadable>,
}

/// The first event of a page that cannot be read or folded. What stands behind it means nothing without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The id of the aggregate whose stream it belongs to.
    pub stream_id: String,
    pub position: Position,
    pub reason: String,
}

impl Unreadable {
    /// An event that cannot be decoded, with the reason behind the reason: what of the payload was not as expected.
    pub fn undecodable(stream_id: String, position: Position, error: &Undecodable) -> Self {
        let source = std::error::Error::source(error);
        let reason =
            source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        Self { stream_id, position, reason }
    }
}

impl EventLog {
    /// Reads whole pages, for whoever folds them.
    pub async fn histories(&self, ids: &[PostId]) -> anyhow::Result<Histories> {
        self.read_histories(self.pages(ids).await?).await
    }

    /// The same for the first of these pages, as many as are not too long together, and one at least. Tells
    /// how many.
    pub async fn first_histories(&self, ids: &[PostId]) -> anyhow::Result<(Histories, usize)> {
        let count = self.count_of_short(ids).await?;
        Ok((self.histories(&ids[..count]).await?, count))
    }

    /// Reads stored events. It costs a question about discarded ones only where one cannot be read.
    pub async fn read(
        &self,
        stored: Vec<Recorded<RawEvent>>,
    ) -> anyhow::Result<Vec<Recorded<Reading>>> {
        let mut events: Vec<_> = stored.into_iter().map(read).collect();
        let failed = |event: &&mut Recorded<Reading>| match event.payload {
            Reading::Unreadable(_) => true,
            Reading::Event(_) | Reading::Discarded => false,
        };
        let positions: Vec<_> =
            events.iter_mut().filter(failed).map(|event| event.position).collect();
        if !positions.is_empty() {
            let discarded = self.discarded_among(&positions).await?;
            let discarded: HashSet<Position> = discarded.into_iter().collect();
            let known = |event: &&mut Recorded<Reading>| discarded.contains(&event.position);
            for event in events.iter_mut().filter(known) {
                event.payload = Reading::Discarded;
            }
        }
        Ok(events)
    }

    async fn read_histories(&self, pages: Pages) -> anyhow::Result<Histories> {
        let mut histories =
            Histories { as_of: pages.as_of, events: Vec::new(), unreadable: Vec::new() };
        for event in self.read(pages.events).await.context("reading whole pages")? {
            if histories.unreadable.last().is_some_and(|end| end.stream_id == event.stream_id) {
                continue;
            }
            let (position, stream_id) = (event.position, event.stream_id.clone());
            let readable = event.try_map(|reading| match reading {
                Reading::Event(event) => Ok(Some(event)),
                Reading::Discarded => Ok(None),
                Reading::Unreadable(error) => Err(error),
            });
            match readable {
                Ok(event) => histories.events.push(event),
                Err(error) => {
                    let end = Unreadable::undecodable(stream_id, position, &error);
                    histories.unreadable.push(end);
                }
            }
        }
        Ok(histories)
    }
}

fn read(event: Recorded<RawEvent>) -> Recorded<Reading> {
    let Recorded { position, event_id, sequence, recorded_at, .. } = event;
    let stream_id = event.stream_id.clone();
    let payload = match PostEvent::decode(event) {
        Ok(event) => Reading::Event(event.payload),
        Err(error) => Reading::Unreadable(error),
    };
    Recorded { position, event_id, stream_id, sequence, recorded_at, payload }
}

//! What lies in Redis, looked at field by field: for whoever holds it against the log.

use std::collections::HashMap;

use domain::{Partition, Position, PostId};
use redis::{Script, Value};

use crate::lists::memberships;
use crate::markdown::render_all;
use crate::reading::watermark;
use crate::views::{read, values};
use crate::{Row, StoredRow, Views, ViewsError, Watermark};

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub key: String,
    /// Of a row: the name of a field. Of a list: a place.
    pub field: String,
    pub found: Option<String>,
    pub expected: Option<String>,
}

/// A post as it lies in Redis, all of it at one moment.
#[derive(Debug)]
pub struct Inspected {
    pub watermark: Option<Watermark>,
    /// The event for which the page is set aside.
    pub quarantined: Option<Position>,
    fields: HashMap<String, Vec<u8>>,
    listed: Option<String>,
    /// The places that it should have, by what is remembered of it, and the score that each has.
    places: Vec<(String, String, Option<f64>)>,
}

/// An entry of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub list: String,
    pub place: String,
    pub score: f64,
}

impl Inspected {
    /// Up to where it holds every event of its page. A row that was folded from the log may be ahead of the
    /// watermark.
    pub fn as_of(&self) -> Position {
        let of = |mark: &Watermark| mark.point.position;
        let mark = self.watermark.as_ref().map(of).unwrap_or_default();
        let row = self.fields.get("position").filter(|_| self.has_row());
        let row = row.and_then(|position| text(position).parse().ok());
        let listed = self.listed.as_deref().and_then(|entry| entry.lines().next()?.parse().ok());
        mark.max(Position(row.unwrap_or(0))).max(Position(listed.unwrap_or(0)))
    }

    /// Whether its partition has not been filled yet with a page that last changed at this position: what is not there
    /// of it is no loss.
    pub fn is_yet_to_be_filled(&self, position: Position) -> bool {
        let unfilled = self.watermark.as_ref().and_then(|mark| mark.unfilled_below);
        unfilled.is_some_and(|below| position < below)
    }

    /// Whether there is a row that is not of an epoch that is over.
    fn has_row(&self) -> bool {
        let epoch = self.watermark.as_ref().map(|mark| mark.epoch.as_bytes());
        epoch.is_some() && self.fields.get("epoch").map(Vec::as_slice) == epoch
    }
}

impl Views {
    /// Looks at posts, each at a moment of its own.
    pub async fn inspect(&self, ids: &[PostId]) -> Result<Vec<Inspected>, ViewsError> {
        let keys = self.keys();
        let script = Script::new(include_str!("inspect.lua"));
        let mut exchange = self.connection.exchange();
        for id in ids {
            let partition = self.partition_of(*id);
            let mark = keys.watermark(partition);
            let mut call = script.prepare_invoke();
            call.key(&mark)
                .key(keys.quarantined(partition))
                .key(keys.post(partition, *id))
                .key(keys.listed(partition))
                .key(keys.never(partition))
                .arg(id.to_string())
                .arg(keys.list_prefix(partition));
            exchange.call(&mark, &script, &call);
        }
        exchange.send().await.singles()?.into_iter().map(inspected).collect()
    }

    /// How the mark that a page is set aside differs, where its whole log can be folded.
    pub fn set_aside_for_nothing(&self, id: PostId, event: Position) -> Difference {
        Difference {
            key: self.keys().quarantined(self.partition_of(id)),
            field: id.to_string(),
            found: Some(event.to_string()),
            expected: None,
        }
    }

    /// How a post as it lies in Redis differs from what it should be. A row that is not there has expired, unless
    /// it is that of a deleted post, which never does. Of a page that is yet to be filled nothing need be there.
    pub async fn differences(
        &self,
        id: PostId,
        expected: &Row,
        inspected: &Inspected,
    ) -> Result<Vec<Difference>, ViewsError> {
        let (keys, partition) = (self.keys(), self.partition_of(id));
        let fields = if inspected.has_row() { fields(expected).await? } else { vec![] };
        let mut differences = vec![];
        let mut differ =
            |key: &str, field: &str, found: Option<String>, expected: Option<String>| {
                if found != expected {
                    let (key, field) = (key.to_owned(), field.to_owned());
                    differences.push(Difference { key, field, found, expected });
                }
            };
        let yet_to_come = inspected.is_yet_to_be_filled(expected.position);
        let key = keys.post(partition, id);
        if inspected.has_row() {
            for (field, value) in fields {
                let found = inspected.fields.get(field).map(|found| text(found));
                differ(&key, field, found, Some(text(&value)));
            }
        } else if expected.page.is_none() && !yet_to_come {
            differ(&key, "state", None, Some(StoredRow::try_from(expected)?.state().to_owned()));
        }

        let lists = expected.page.as_ref().map_or_else(Vec::new, memberships);
        let mut lines: Vec<String> =
            lists.iter().map(|(list, place)| format!("{list}\t{place}")).collect();
        lines.sort_unstable();
        let listed = keys.listed(partition);
        match inspected.listed.as_deref().and_then(|entry| entry.split_once('\n')) {
            Some((position, entry)) => {
                let mut found: Vec<&str> = entry.lines().collect();
                found.sort_unstable();
                differ(&listed, &id.to_string(), Some(found.join("; ")), Some(lines.join("; ")));
                let of = format!("{id} (position)");
                differ(
                    &listed,
                    &of,
                    Some(position.to_owned()),
                    Some(expected.position.to_string()),
                );
            }
            // A post that was never in a list may have none.
            None if lines.is_empty() || yet_to_come => {}
            None => {
                differ(&listed, &id.to_string(), inspected.listed.clone(), Some(lines.join("; ")));
            }
        }
        for (list, place, score) in &inspected.places {
            let key = format!("{}{list}", keys.list_prefix(partition));
            // Ordered by their members alone: any score but zero puts a place where it does not belong.
            let found = score.map(|score| format!("at {score}"));
            differ(&key, place, found, Some("at 0".to_owned()));
        }
        Ok(differences)
    }

    /// Some entries of a list that are no place of their post, as far as it is known which places it has; and where to go on, zero at
    /// the end.
    pub async fn strays(
        &self,
        partition: Partition,
        list: &str,
        cursor: u64,
    ) -> Result<(u64, Vec<Entry>), ViewsError> {
        let keys = self.keys();
        let key = format!("{}{list}", keys.list_prefix(partition));
        let mut exchange = self.connection.exchange();
        exchange.question(&key).cmd("ZSCAN").arg(&key).arg(cursor).arg("COUNT").arg(500);
        let [answer] = exchange.send().await.next()?;
        let (next, entries): (u64, Vec<(String, f64)>) = read(answer)?;
        if entries.is_empty() {
            return Ok((next, vec![]));
        }
        let listed = keys.listed(partition);
        let ids: Vec<&str> = entries.iter().map(|(place, _)| post_of(place)).collect();
        let mut exchange = self.connection.exchange();
        exchange.question(&listed).cmd("HMGET").arg(&listed).arg(ids);
        let [answer] = exchange.send().await.next()?;
        let listed = values::<String>(answer)?;
        let mut strays = vec![];
        for ((place, score), listed) in entries.into_iter().zip(listed) {
            let line = format!("{list}\t{place}");
            let known = listed.is_some_and(|entry| entry.lines().any(|known| known == line));
            if !known || score != 0.0 {
                strays.push(Entry { list: list.to_owned(), place, score });
            }
        }
        Ok((next, strays))
    }

    /// Looks at an entry again; and with `remove`, takes it out of its list if its post has no place there. Tells whether it has none.
    pub async fn is_stray(
        &self,
        partition: Partition,
        entry: &Entry,
        remove: bool,
    ) -> Result<bool, ViewsError> {
        let keys = self.keys();
        let script = Script::new(include_str!("stray.lua"));
        let listed = keys.listed(partition);
        let mut call = script.prepare_invoke();
        call.key(&listed)
            .key(format!("{}{}", keys.list_prefix(partition), entry.list))
            .key(keys.never(partition))
            .arg(post_of(&entry.place))
            .arg(&entry.list)
            .arg(&entry.place)
            .arg(u8::from(remove));
        let mut exchange = self.connection.exchange();
        exchange.call(&listed, &script, &call);
        let [answer] = exchange.send().await.next()?;
        read(answer)
    }

    /// Takes out a post that the log has never heard of, with its row and its places. Whoever keeps copies is told.
    pub async fn forget(&self, partition: Partition, id: PostId) -> Result<bool, ViewsError> {
        let keys = self.keys();
        let script = Script::new(include_str!("forget.lua"));
        let listed = keys.listed(partition);
        let mut call = script.prepare_invoke();
        call.key(&listed)
            .key(keys.post(partition, id))
            .key(keys.quarantined(partition))
            .key(keys.never(partition))
            .arg(id.to_string())
            .arg(keys.list_prefix(partition))
            .arg(keys.announcements())
            .arg(format!("{id}\n"));
        let mut exchange = self.connection.exchange();
        exchange.call(&listed, &script, &call);
        let [answer] = exchange.send().await.next()?;
        read(answer)
    }

    /// The key of a list, to be named.
    pub fn list_key(&self, partition: Partition, list: &str) -> String {
        format!("{}{list}", self.keys().list_prefix(partition))
    }

    /// Some posts that a partition knows; and where to go on, zero at the end.
    pub async fn listed_posts(
        &self,
        partition: Partition,
        cursor: u64,
    ) -> Result<(u64, Vec<PostId>), ViewsError> {
        let listed = self.keys().listed(partition);
        let mut exchange = self.connection.exchange();
        exchange.question(&listed).cmd("HSCAN").arg(&listed).arg(cursor).arg("COUNT").arg(500);
        let [answer] = exchange.send().await.next()?;
        let (next, entries): (u64, Vec<(String, String)>) = read(answer)?;
        Ok((next, entries.iter().filter_map(|(id, _)| id.parse().ok()).collect()))
    }
}

/// The fields of a row, but for its epoch, in the shape in which the guard writes them.
pub(crate) async fn fields(row: &Row) -> Result<Vec<(&'static str, Vec<u8>)>, ViewsError> {
    let stored = StoredRow::try_from(row)?;
    let position = ("position", stored.position.to_string().into_bytes());
    let state = ("state", stored.state().as_bytes().to_vec());
    let (Some(page), Some(stored)) = (&row.page, &stored.page) else {
        let empty = ["slug", "card", "content", "html"].map(|field| (field, vec![]));
        return Ok([position, state].into_iter().chain(empty).collect());
    };
    let html = render_all([page.text_to_render().to_owned()]).await;
    let html = html.map_err(|_ended| ViewsError::Malformed("a text"))?.concat();
    Ok(vec![
        position,
        state,
        ("slug", stored.slug.as_ref().map_or("", |slug| slug.as_str()).as_bytes().to_vec()),
        ("created", stored.created_at.timestamp_micros().to_string().into_bytes()),
        ("card", stored.card.to_vec()),
        ("content", stored.content.to_vec()),
        ("html", html.into_bytes()),
    ])
}

fn inspected(answer: Value) -> Result<Inspected, ViewsError> {
    let mut parts = values_of(answer)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let watermark = watermark(next())?;
    let quarantined: Option<u64> = read(next())?;
    let fields: Vec<Vec<u8>> = read(next())?;
    let pairs = fields.chunks_exact(2).map(|pair| (text(&pair[0]), pair[1].clone()));
    let fields = pairs.collect();
    let listed = read(next())?;
    let places: Vec<Option<String>> = read(next())?;
    let places = places.chunks(3).map(|place| {
        let score = place.get(2).cloned().flatten().and_then(|score| score.parse().ok());
        let name = |index: usize| place.get(index).cloned().flatten().unwrap_or_default();
        (name(0), name(1), score)
    });
    let places = places.collect();
    Ok(Inspected { watermark, quarantined: quarantined.map(Position), fields, listed, places })
}

fn values_of(answer: Value) -> Result<Vec<Value>, ViewsError> {
    let Value::Array(values) = answer else {
        return Err(ViewsError::Malformed("a look at a post"));
    };
    Ok(values)
}

fn post_of(place: &str) -> &str {
    place.split_once(':').map_or("", |(_, id)| id)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

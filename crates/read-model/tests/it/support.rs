//! Views with keys of their own, and posts with a history to fold.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::post::{PostEvent, TagSlug};
use domain::{Partition, Partitions, Point, Position, PostId, Recorded};
use read_model::{
    Advance, Fill, Guarded, KeySpace, ListName, NewEpoch, Row, StoredRow, Views, Watermark,
    fold_pages,
};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use testkit::{connection_to, unique_name};
use uuid::Uuid;

use crate::ground;

/// The epoch that tests begin with.
pub(crate) const EPOCH: &str = "first";

/// Views of a few partitions, each at its beginning.
pub(crate) struct Store {
    pub(crate) views: Views,
    /// To where each partition lies.
    redis: Vec<MultiplexedConnection>,
    pub(crate) prefix: String,
}

impl Store {
    pub(crate) async fn new() -> Self {
        Self::with_partitions(1).await
    }

    pub(crate) async fn with_partitions(count: u16) -> Self {
        let store = Self::empty(count).await;
        for partition in 0..count {
            let new = beginning(Partition(partition), EPOCH, Point::START, None);
            assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
        }
        store
    }

    /// Without any watermark.
    pub(crate) async fn empty(count: u16) -> Self {
        Self::empty_at(&ground::url().await, count).await
    }

    pub(crate) async fn empty_at(url: &str, count: u16) -> Self {
        let (prefix, partitions) = (unique_name("views"), Partitions::new(count).unwrap());
        let keys = KeySpace::new(&prefix).unwrap();
        let views = Views::new(url, keys, partitions, Duration::from_secs(10)).unwrap();
        let mut store = Self { views, redis: vec![], prefix };
        for partition in (0..count).map(Partition) {
            let key = store.key(partition, "watermark");
            store.redis.push(connection_to(url, &key).await.unwrap());
        }
        store
    }

    /// A connection to where a partition lay in the beginning.
    pub(crate) fn redis(&self, partition: Partition) -> MultiplexedConnection {
        self.redis[usize::from(partition.0)].clone()
    }

    pub(crate) async fn watermark(&self, partition: Partition) -> Option<Watermark> {
        self.views.watermarks().await.unwrap().swap_remove(usize::from(partition.0))
    }

    /// Moves the watermark of the post's partition, wherever it stands, to a position, with the row that the
    /// post then has.
    pub(crate) async fn project(&self, post: &Post, to: u64) -> Guarded {
        let partition = self.views.partition_of(post.id);
        let from = self.watermark(partition).await.unwrap();
        let advance = Advance {
            epoch: from.epoch,
            from: from.point,
            ..advance(partition, 0, to, vec![(post.id, post.row_at(to))])
        };
        self.views.advance(&[advance]).await.unwrap().remove(0).unwrap()
    }

    pub(crate) async fn advance(&self, advance: Advance) -> Guarded {
        self.views.advance(&[advance]).await.unwrap().remove(0).unwrap()
    }

    /// Offers the post as it was at a position, in its partition's present epoch.
    pub(crate) async fn fill(&self, post: &Post, as_of: u64) -> Guarded {
        let partition = self.views.partition_of(post.id);
        let epoch = self.watermark(partition).await.unwrap().epoch;
        let rows = vec![(post.id, post.row_at(as_of))];
        self.views.fill(&Fill { epoch, ..fill(partition, as_of, rows) }).await.unwrap()
    }

    pub(crate) async fn row(&self, id: PostId) -> Option<StoredRow> {
        self.views.row(id).await.unwrap().row
    }

    /// The card and the text of a post.
    pub(crate) async fn text(&self, post: &Post) -> Option<(String, String)> {
        let text = self.views.texts(&[post.id]).await.unwrap().remove(0).text;
        let string = |bytes: bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        text.map(|(card, html)| (string(card), string(html)))
    }

    /// Takes a row away, as Redis does when it runs short of memory.
    pub(crate) async fn evict(&self, post: &Post) {
        let partition = self.views.partition_of(post.id);
        let key = self.key(partition, &format!("post:{}", post.id));
        self.redis(partition).del::<_, ()>(key).await.unwrap();
    }

    /// A key of a partition, by what follows its hash tag.
    pub(crate) fn key(&self, partition: Partition, rest: &str) -> String {
        format!("{{{}:g1:{partition}}}:{rest}", self.prefix)
    }

    /// The posts of a list, latest first, partition by partition.
    pub(crate) async fn list(&self, name: ListName) -> Vec<PostId> {
        let parts = self.views.list(&name, None, 100).await.unwrap();
        parts.iter().flat_map(|part| &part.places).map(|place| place.post_id).collect()
    }

    /// In which of the lists of tests a post is.
    pub(crate) async fn lists_of(&self, post: &Post) -> Vec<&'static str> {
        let mut lists = vec![];
        for (name, list) in [
            ("published", ListName::Published),
            ("anne", ListName::Author("anne".parse().unwrap())),
            ("craft", ListName::Tag(TagSlug::of("craft").unwrap())),
            ("art", ListName::Tag(TagSlug::of("art").unwrap())),
            ("own", ListName::Own("anne".parse().unwrap())),
            ("own drafts", ListName::OwnDrafts("anne".parse().unwrap())),
            ("own published", ListName::OwnPublished("anne".parse().unwrap())),
        ] {
            if self.list(list).await.contains(&post.id) {
                lists.push(name);
            }
        }
        lists
    }

    /// All keys of a partition, each with all that its value holds.
    pub(crate) async fn contents(&self, partition: Partition) -> Vec<(String, Vec<String>)> {
        let mut redis = self.redis(partition);
        let mut keys: Vec<String> = redis.keys(self.key(partition, "*")).await.unwrap();
        keys.sort();
        let mut contents = vec![];
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut redis).await.unwrap();
            let mut value: Vec<String> = match kind.as_str() {
                "hash" => {
                    let fields: BTreeMap<String, String> = redis.hgetall(&key).await.unwrap();
                    fields.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
                }
                "set" => redis.smembers(&key).await.unwrap(),
                _ => redis.zrange(&key, 0, -1).await.unwrap(),
            };
            value.sort();
            contents.push((key, value));
        }
        contents
    }
}

/// A post and what has happened to it.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) id: PostId,
    pub(crate) events: Vec<Recorded<PostEvent>>,
}

impl Post {
    /// Drafted by Anne, with the tag `craft`.
    pub(crate) fn drafted(position: u64) -> Self {
        let post = Self { id: PostId(Uuid::now_v7()), events: vec![] };
        post.then(
            position,
            json!({"drafted": {
                "author": {"id": "anne", "name": "Anne"},
                "content": {"title": "On writing", "content": "Begin.", "tags": ["craft"]},
            }}),
        )
    }

    pub(crate) fn published(self, position: u64) -> Self {
        self.then(position, json!({"published": {"slug": "on-writing"}}))
    }

    pub(crate) fn unpublished(self, position: u64) -> Self {
        self.then(position, json!({"unpublished": {}}))
    }

    pub(crate) fn deleted(self, position: u64) -> Self {
        self.then(position, json!({"deleted": {}}))
    }

    pub(crate) fn tagged(self, position: u64, tags: &[&str]) -> Self {
        self.then(position, json!({"revised": {"changes": {"tags": tags}}}))
    }

    pub(crate) fn titled(self, position: u64, title: &str) -> Self {
        self.then(position, json!({"revised": {"changes": {"title": title}}}))
    }

    fn then(mut self, position: u64, event: Value) -> Self {
        let millis = 1_777_777_777_000 + i64::try_from(position).unwrap();
        self.events.push(Recorded {
            position: Position(position),
            event_id: at(position).event_id,
            stream_id: self.id.to_string(),
            sequence: u64::try_from(self.events.len()).unwrap() + 1,
            recorded_at: chrono::DateTime::from_timestamp_millis(millis).unwrap(),
            payload: serde_json::from_value(event).unwrap(),
        });
        self
    }

    /// The fold of all events up to a position, of which there must be one.
    pub(crate) fn row_at(&self, position: u64) -> Row {
        let events = self.events.iter().filter(|event| event.position.0 <= position);
        fold_pages(events).remove(&self.id).unwrap()
    }

    pub(crate) fn stored_at(&self, position: u64) -> StoredRow {
        StoredRow::try_from(&self.row_at(position)).unwrap()
    }
}

/// The event at a position of the log that all tests share.
pub(crate) fn at(position: u64) -> Point {
    match position {
        0 => Point::START,
        _ => {
            Point { position: Position(position), event_id: Uuid::from_u128(u128::from(position)) }
        }
    }
}

pub(crate) fn advance(
    partition: Partition,
    from: u64,
    to: u64,
    rows: Vec<(PostId, Row)>,
) -> Advance {
    let epoch = EPOCH.to_owned();
    Advance {
        partition,
        incarnation: 1,
        epoch,
        from: at(from),
        to: at(to),
        rows,
        slugs: vec![],
        flags: vec![],
    }
}

pub(crate) fn fill(partition: Partition, as_of: u64, rows: Vec<(PostId, Row)>) -> Fill {
    Fill {
        partition,
        incarnation: 1,
        epoch: EPOCH.to_owned(),
        as_of: Position(as_of),
        rows,
        unfilled_below: None,
        flags: vec![],
    }
}

pub(crate) fn beginning(
    partition: Partition,
    epoch: &str,
    head: Point,
    found: Option<Watermark>,
) -> NewEpoch {
    NewEpoch { partition, incarnation: 1, epoch: epoch.to_owned(), head, found }
}

//! Events in the log, recorded as the command service does it.

use domain::{Partition, Point, Position, PostId};
use read_model::{Guarded, NewEpoch, Watermark};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Blog;

impl Blog {
    /// So many posts in each partition, published.
    pub(crate) async fn publish_in_all(&self, count: usize) -> Vec<PostId> {
        let mut ids = vec![];
        for _ in 0..count {
            for partition in Self::partitions() {
                ids.push(self.publish_in(partition).await);
            }
        }
        ids
    }

    pub(crate) async fn publish_in(&self, partition: Partition) -> PostId {
        let id = self.id_in(partition);
        let content = json!({"title": "On writing", "content": "Begin.", "tags": ["craft"]});
        let author = json!({"id": "anne", "name": "Anne"});
        self.record(id, json!({"drafted": {"author": author, "content": content}})).await;
        self.record(id, json!({"published": {"slug": slug(id)}})).await;
        id
    }

    pub(crate) async fn revise(&self, id: PostId, title: &str) -> Position {
        self.record(id, json!({"revised": {"changes": {"title": title, "tags": ["art"]}}})).await
    }

    pub(crate) async fn unpublish(&self, id: PostId) -> Position {
        self.record(id, json!({"unpublished": {}})).await
    }

    pub(crate) async fn delete(&self, id: PostId) -> Position {
        self.record(id, json!({"deleted": {}})).await
    }

    /// Records one event, in the form in which it is stored.
    pub(crate) async fn record(&self, id: PostId, event: Value) -> Position {
        self.record_version(id, event, "1").await
    }

    /// Records an event that no program can read yet.
    pub(crate) async fn record_unreadable(&self, id: PostId) -> Position {
        self.record_version(id, json!({"revised": {"changes": {}}}), "999").await
    }

    /// The same, of the first event of a post.
    pub(crate) async fn record_unreadable_beginning(&self, id: PostId) -> Position {
        let content = json!({"title": "On writing", "content": "Begin.", "tags": ["craft"]});
        let author = json!({"id": "anne", "name": "Anne"});
        let drafted = json!({"drafted": {"author": author, "content": content}});
        self.record_version(id, drafted, "999").await
    }

    async fn record_version(&self, id: PostId, event: Value, event_version: &str) -> Position {
        let (name, members) = event.as_object().unwrap().iter().next().unwrap();
        let slug = members["slug"].as_str().map(str::to_owned);
        let id = id.to_string();
        let version: i64 = sqlx::query_scalar(
            "SELECT coalesce(max(sequence), 0) FROM events WHERE aggregate_id = $1",
        )
        .bind(&id)
        .fetch_one(&self.pool)
        .await
        .unwrap();
        let (outcome, position): (String, i64) = sqlx::query_as(
            "SELECT outcome, position
             FROM append_events(
                 ARRAY['post'], ARRAY[$1], ARRAY[$2], ARRAY[$3], ARRAY[1], ARRAY[$4],
                 NULL, NULL, NULL, NULL,
                 ARRAY[1], ARRAY['post'], ARRAY[$1], ARRAY[$2 + 1], ARRAY[$5], ARRAY[$4],
                 ARRAY[$6], ARRAY[$7], ARRAY[$8], ARRAY['{}']
             )",
        )
        .bind(&id)
        .bind(version)
        .bind(slug)
        .bind(Uuid::now_v7())
        .bind(i32::from(self.log.partitions().of(&id).0))
        .bind(format!("post.{name}"))
        .bind(event_version)
        .bind(event.to_string())
        .fetch_one(&self.pool)
        .await
        .unwrap();
        assert_eq!(outcome, "recorded");
        Position::from_i64(position)
    }

    /// Has the views stand at a position of the log, as if they had never come further, and be filled up to it.
    pub(crate) async fn begins_at(&self, position: Position) {
        let points = self.log.points_at(position).await.unwrap();
        let found = self.views.watermarks().await.unwrap();
        for ((partition, head), found) in Self::partitions().zip(points).zip(found) {
            self.begins_anew(partition, head, found).await;
        }
    }

    /// Has one partition lose everything, and stand at the head of its log.
    pub(crate) async fn loses(&self, partition: Partition) {
        let head = self.log.heads().await.unwrap()[usize::from(partition.0)];
        self.begins_anew(partition, head, Some(self.watermark(partition).await)).await;
    }

    async fn begins_anew(&self, partition: Partition, head: Point, found: Option<Watermark>) {
        let epoch = Watermark::new_epoch(Uuid::new_v4());
        let incarnation = self.log.incarnation().await.unwrap();
        let new = NewEpoch { partition, incarnation, epoch, head, found };
        assert_eq!(self.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
    }

    pub(crate) async fn raise_incarnation(&self, to: i32) {
        sqlx::query("UPDATE store SET incarnation = $1")
            .bind(to)
            .execute(&self.pool)
            .await
            .unwrap();
    }
}

pub(crate) fn slug(id: PostId) -> String {
    format!("on-writing-{}", id.random_digits())
}

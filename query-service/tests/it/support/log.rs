//! Events in the log, recorded as the command service does it.

use domain::{Position, PostId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Blog, new_id};

impl Blog {
    /// A post of Anne's, published under a slug, its title made of it.
    pub(crate) async fn publish(&self, slug: &str) -> PostId {
        self.publish_as("anne", slug, &[]).await
    }

    pub(crate) async fn publish_as(&self, author: &str, slug: &str, tags: &[&str]) -> PostId {
        let id = self.draft_as(author, slug, tags).await;
        self.record(id, json!({"published": {"slug": slug}})).await;
        id
    }

    /// In another partition than this post.
    pub(crate) async fn publish_elsewhere(&self, than: PostId, slug: &str) -> PostId {
        let mut ids = std::iter::repeat_with(new_id);
        let is_elsewhere =
            |id: &PostId| self.views.partition_of(*id) != self.views.partition_of(than);
        let id = ids.find(is_elsewhere).unwrap();
        let content = json!({"title": format!("On {slug}"), "content": "Begin."});
        let author = json!({"id": "anne", "name": "anne"});
        self.record(id, json!({"drafted": {"author": author, "content": content}})).await;
        self.record(id, json!({"published": {"slug": slug}})).await;
        id
    }

    pub(crate) async fn draft(&self, slug: &str) -> PostId {
        self.draft_as("anne", slug, &[]).await
    }

    async fn draft_as(&self, author: &str, slug: &str, tags: &[&str]) -> PostId {
        self.write(author, slug, json!({"content": "Begin.", "tags": tags})).await
    }

    /// A draft with more to it than a title.
    pub(crate) async fn write(&self, author: &str, slug: &str, mut content: Value) -> PostId {
        let id = new_id();
        content["title"] = json!(format!("On {slug}"));
        let author = json!({"id": author, "name": author});
        self.record(id, json!({"drafted": {"author": author, "content": content, "slug": slug}}))
            .await;
        id
    }

    pub(crate) async fn revise_title(&self, id: PostId, title: &str) -> Position {
        self.record(id, json!({"revised": {"changes": {"title": title}}})).await
    }

    pub(crate) async fn move_to(&self, id: PostId, slug: &str) {
        self.record(id, json!({"revised": {"changes": {}, "slug": slug}})).await;
    }

    pub(crate) async fn unpublish(&self, id: PostId) {
        self.record(id, json!({"unpublished": {}})).await;
    }

    pub(crate) async fn delete(&self, id: PostId) {
        self.record(id, json!({"deleted": {}})).await;
    }

    pub(crate) async fn publish_again(&self, id: PostId, slug: &str) {
        self.record(id, json!({"published": {"slug": slug}})).await;
    }

    /// Position of the last event.
    pub(crate) async fn head(&self) -> Position {
        self.log().head().await.unwrap()
    }

    /// Records one event, in the form in which it is stored.
    pub(crate) async fn record(&self, id: PostId, event: Value) -> Position {
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
        let event_id = Uuid::now_v7();
        let (outcome, position): (String, i64) = sqlx::query_as(
            "SELECT outcome, position
             FROM append_events(
                 ARRAY['post'], ARRAY[$1], ARRAY[$2], ARRAY[$3], ARRAY[1], ARRAY[$4],
                 NULL, NULL, NULL, NULL,
                 ARRAY[1], ARRAY['post'], ARRAY[$1], ARRAY[$2 + 1], ARRAY[$5], ARRAY[$4],
                 ARRAY[$6], ARRAY['1'], ARRAY[$7], ARRAY['{}']
             )",
        )
        .bind(&id)
        .bind(version)
        .bind(slug)
        .bind(event_id)
        .bind(i32::from(self.store.partitions.of(&id).0))
        .bind(format!("post.{name}"))
        .bind(event.to_string())
        .fetch_one(&self.pool)
        .await
        .unwrap();
        assert_eq!(outcome, "recorded");
        Position::from_i64(position)
    }
}

//! What a process knows to be withdrawn is never served again by it, whatever is away.

use testkit::{Proxy, eventually, shared};
use uuid::Uuid;

use crate::lists::slugs_of;
use crate::support::{Answer, Blog, from_memory};

/// So long that within a test only an announcement ends anything.
const LONG: [&str; 2] = ["--memory-ms", "60000"];

/// A blog whose servers can be cut off.
struct Cut {
    blog: Blog,
    redis: Proxy,
    postgres: Proxy,
    _database: testkit::TestDatabase,
}

impl Cut {
    async fn start(options: &[&'static str]) -> Self {
        let database = crate::support::database().await;
        let (redis, redis_url) = shared().redis_proxy();
        let (postgres, database_url) = shared().postgres_proxy(database.name());
        let url = database.url();
        let blog = Blog::start_behind(url, &database_url, &redis_url, options).await;
        Self { blog, redis, postgres, _database: database }
    }

    /// Projects, and waits until the process has heard of it: announcements come in their order.
    async fn project_and_be_heard(&self, witness: domain::PostId) {
        self.blog.project().await;
        let address = format!("/posts/{witness}");
        eventually("the process listens", async || {
            from_memory(async || self.blog.reader().get(&address).await).await;
            let title = Uuid::new_v4().to_string();
            self.blog.revise_title(witness, &title).await;
            self.blog.project().await;
            let has_it = async || self.blog.reader().get(&address).await.json()["title"] == title;
            eventually("the witness changes", has_it).await;
            true
        })
        .await;
    }
}

#[tokio::test]
async fn a_post_that_was_withdrawn_does_not_come_back_from_memory() {
    let cut = Cut::start(&LONG).await;
    let blog = &cut.blog;
    let (unpublished, deleted) = (blog.publish("unpublished").await, blog.publish("deleted").await);
    let witness = blog.publish("witness").await;
    blog.project().await;
    for slug in ["unpublished", "deleted", "witness"] {
        let page = format!("/posts/{slug}");
        from_memory(async || blog.reader().get(&page).await).await;
    }
    let list = blog.reader().get("/posts").await;
    assert_eq!(slugs_of(&list), ["witness", "deleted", "unpublished"]);

    blog.unpublish(unpublished).await;
    blog.delete(deleted).await;
    cut.project_and_be_heard(witness).await;
    cut.redis.cut();
    cut.postgres.cut();
    eventually("the witness is served from memory", async || {
        let page = blog.reader().get("/posts/witness").await;
        (page.status, page.is_stale()) == (200, true)
    })
    .await;
    let readers = [blog.reader(), blog.reader().as_author("bob")];
    for reader in &readers {
        for address in ["unpublished", "deleted", &unpublished.to_string(), &deleted.to_string()] {
            for kind in ["posts", "post"] {
                let page = reader.get(&format!("/{kind}/{address}")).await;
                assert_ne!(page.status, 200, "{kind}/{address}: {page:?}");
                assert!(!page.text.contains("Begin."), "{page:?}");
            }
            let page = reader.browse(&format!("/posts/{address}")).await;
            assert_ne!(page.status, 200, "{address}: {page:?}");
        }
        let list = reader.get("/posts").await;
        assert_eq!((slugs_of(&list), list.is_stale()), (vec!["witness".to_owned()], true));
        assert_ne!(list.header("etag"), "");
        let list = reader.browse("/posts").await;
        assert_eq!(list.status, 200);
        for title in ["On unpublished", "On deleted"] {
            assert!(!list.text.contains(title), "{}", list.text);
        }
    }
}

#[tokio::test]
async fn a_withdrawal_that_the_event_store_tells_ends_what_memory_has() {
    let cut = Cut::start(&LONG).await;
    let blog = &cut.blog;
    let id = blog.publish("writing").await;
    blog.project().await;
    from_memory(async || blog.reader().get("/posts/writing").await).await;
    assert_eq!(slugs_of(&blog.reader().get("/posts").await), ["writing"]);

    // Redis has not heard of it; this process has, by its own fold.
    blog.unpublish(id).await;
    let position = blog.head().await;
    let token = blog.token(1, id, position);
    let answer = blog.reader().get_with("/posts/writing", "consistency-token", &token).await;
    assert_eq!(answer.status, 404);
    assert_eq!(blog.reader().get("/posts/writing").await.status, 404, "from memory");
    let fresh = blog.reader().get("/posts").await;
    assert_eq!((slugs_of(&fresh).len(), fresh.is_stale()), (0, true), "from Redis");
    cut.postgres.cut();
    eventually("memory's answer has had its time", async || {
        let status = blog.reader().get("/posts/writing").await.status;
        assert_ne!(status, 200, "from Redis");
        status == 503
    })
    .await;
    cut.redis.cut();
    let copy = blog.reader().get("/posts").await;
    assert!(copy.status == 503 || slugs_of(&copy).is_empty(), "{copy:?}");
    assert_eq!(blog.reader().get("/posts/writing").await.status, 503);
}

#[tokio::test]
async fn a_post_that_is_published_again_is_served_again() {
    let cut = Cut::start(&LONG).await;
    let blog = &cut.blog;
    let (id, witness) = (blog.publish("writing").await, blog.publish("witness").await);
    blog.project().await;
    from_memory(async || blog.reader().get("/posts/writing").await).await;
    blog.unpublish(id).await;
    cut.project_and_be_heard(witness).await;
    blog.publish_again(id, "writing").await;
    blog.project().await;
    eventually("it is shown again", async || {
        blog.reader().get("/posts/writing").await.status == 200
    })
    .await;
    from_memory(async || blog.reader().get("/posts/writing").await).await;
    cut.redis.cut();
    cut.postgres.cut();
    let page: Answer = blog.reader().get("/posts/writing").await;
    assert_eq!((page.status, page.source()), (200, "memory"));
}

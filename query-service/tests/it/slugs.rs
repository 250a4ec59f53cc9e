//! Every slug that a post has had, as long as there are readers who know it. Each answer comes once from the
//! log alone, then from Redis.

use domain::{Claim, PostId};
use testkit::{eventually, shared};

use crate::support::{Blog, WITHOUT_MEMORY, database, from_memory};

const SOURCES: [&str; 2] = ["log", "redis"];

#[tokio::test]
async fn every_earlier_slug_leads_to_the_present_one() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("first").await;
    for slug in ["second", "third", "fourth"] {
        blog.move_to(id, slug).await;
    }
    for source in SOURCES {
        for earlier in ["first", "second", "third"] {
            let moved = blog.reader().get(&format!("/posts/{earlier}")).await;
            assert_eq!((moved.status, moved.header("location")), (301, "/posts/fourth"));
            assert_eq!(moved.header("cache-control"), "public, max-age=0, must-revalidate");
            assert_eq!(moved.source(), source);
            let article = blog.reader().get(&format!("/post/{earlier}")).await;
            assert_eq!((article.status, article.header("location")), (301, "/post/fourth"));
        }
        assert_eq!(blog.reader().get("/posts/fourth").await.status, 200);
        assert_eq!(blog.reader().get(&format!("/posts/{id}")).await.status, 200);
        blog.warm_up(&["first", "second", "third", "fourth"]).await;
    }
}

#[tokio::test]
async fn a_post_may_take_an_earlier_slug_of_its_own_again() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("early").await;
    blog.warm_up(&["early"]).await;
    for (present, earlier) in [("late", "early"), ("early", "late"), ("late", "early")] {
        blog.move_to(id, present).await;
        blog.evict(id).await;
        for source in SOURCES {
            let page = blog.reader().get(&format!("/posts/{present}")).await;
            assert_eq!((page.status, page.source()), (200, source));
            let moved = blog.reader().get(&format!("/posts/{earlier}")).await;
            assert_eq!(moved.status, 301, "from {earlier} to {present}");
            assert_eq!(moved.header("location"), format!("/posts/{present}"));
            blog.warm_up(&[present, earlier]).await;
        }
    }
}

#[tokio::test]
async fn a_new_slug_does_not_lead_back_to_the_old_one_while_redis_is_behind() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("early").await;
    blog.warm_up(&["early"]).await;
    blog.move_to(id, "late").await;
    let page = blog.reader().get("/posts/late").await;
    assert_eq!((page.status, page.source()), (200, "log"));
}

#[tokio::test]
async fn a_deleted_post_is_gone_by_all_its_addresses() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("early").await;
    blog.move_to(id, "late").await;
    blog.delete(id).await;
    for _source in SOURCES {
        gone(&blog, &["early", "late"], id).await;
        blog.warm_up(&["early", "late"]).await;
    }
}

#[tokio::test]
async fn a_draft_that_is_deleted_is_not_found_by_the_slug_it_had_claimed() {
    let blog = Blog::start_without_memory().await;
    let id = blog.draft("writing").await;
    blog.delete(id).await;
    for _source in SOURCES {
        for address in ["/posts/writing", "/post/writing", &format!("/posts/{id}")] {
            let answer = blog.reader().get(address).await;
            assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{address}");
        }
        blog.warm_up(&["writing"]).await;
    }
}

#[tokio::test]
async fn a_draft_is_not_found_by_any_of_its_slugs() {
    let blog = Blog::start_without_memory().await;
    blog.draft("planned").await;
    let taken_back = blog.publish("early").await;
    blog.move_to(taken_back, "late").await;
    blog.unpublish(taken_back).await;
    blog.move_to(taken_back, "later").await;
    let slugs = ["planned", "early", "late", "later"];
    for _source in SOURCES {
        for reader in [blog.reader(), blog.reader().as_author("anne")] {
            for slug in slugs {
                for address in [format!("/posts/{slug}"), format!("/post/{slug}")] {
                    let answer = reader.get(&address).await;
                    assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
                    assert_eq!(answer.header("cache-control"), "no-store");
                }
            }
        }
        blog.warm_up(&slugs).await;
    }
}

#[tokio::test]
async fn a_post_published_anew_is_found_by_all_its_slugs_again() {
    let blog = Blog::start_without_memory().await;
    let id = blog.publish("early").await;
    blog.move_to(id, "late").await;
    blog.unpublish(id).await;
    blog.warm_up(&["early", "late"]).await;
    blog.record(id, serde_json::json!({"published": {"slug": "late"}})).await;
    blog.evict(id).await;
    for source in SOURCES {
        let page = blog.reader().get("/posts/late").await;
        assert_eq!((page.status, page.source()), (200, source));
        let moved = blog.reader().get("/posts/early").await;
        assert_eq!((moved.status, moved.header("location")), (301, "/posts/late"));
        blog.warm_up(&["early", "late"]).await;
    }
}

async fn gone(blog: &Blog, slugs: &[&str], id: PostId) {
    let by_slug = slugs.iter().flat_map(|slug| [format!("/posts/{slug}"), format!("/post/{slug}")]);
    for address in by_slug.chain([format!("/posts/{id}")]) {
        let answer = blog.reader().get(&address).await;
        assert_eq!((answer.status, answer.code().as_str()), (410, "gone"), "{address}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

impl Blog {
    /// Brings the views up to date, and waits until Redis knows which posts have these slugs, which were
    /// all asked for.
    async fn warm_up(&self, slugs: &[&str]) {
        self.project().await;
        for slug in slugs {
            self.reader().get(&format!("/posts/{slug}")).await;
            eventually("the slug is remembered", async || {
                self.views.claim_of(1, &slug.parse().unwrap()).await.unwrap().is_some()
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_copy_that_lacks_the_claim_of_a_slug_is_shown_in_place() {
    let database = database().await;
    let (postgres, database_url) = shared().postgres_proxy(database.name());
    let (redis, redis_url) = shared().redis_proxy();
    let blog = Blog::start_behind(database.url(), &database_url, &redis_url, &[]).await;
    let id = blog.publish("early").await;
    blog.project().await;
    from_memory(async || blog.reader().get("/posts/early").await).await;

    blog.move_to(id, "late").await;
    let claim = Claim { post_id: id, position: blog.head().await };
    blog.views.remember_slug(1, &"late".parse().unwrap(), claim).await.unwrap();
    postgres.cut();
    for source in ["redis", "memory"] {
        eventually("the page is shown as it was", async || {
            let pages = [
                blog.reader().get("/posts/late").await,
                blog.reader().as_author("bob").get("/posts/late").await,
                blog.reader().get("/post/late").await,
                blog.reader().browse("/posts/late").await,
            ];
            assert!(pages.iter().all(|page| page.status != 301), "{pages:?}");
            pages.iter().all(|page| page.status == 200 && page.is_stale())
        })
        .await;
        if source == "redis" {
            redis.cut();
        }
    }
    // What has the claim leads on as ever.
    postgres.restore();
    redis.restore();
    eventually("Redis is there", async || blog.views.watermarks().await.is_ok()).await;
    eventually("the old slug leads to the new one", async || {
        blog.project().await;
        blog.reader().get("/posts/early").await.header("location") == "/posts/late"
    })
    .await;
}

#[tokio::test]
async fn a_redirect_keeps_the_query_string() {
    for options in [&[][..], &WITHOUT_MEMORY] {
        let blog = Blog::start_with(options).await;
        let id = blog.publish("early").await;
        blog.move_to(id, "late").await;
        blog.project().await;
        let reader = blog.reader();
        for _ in 0..3 {
            for query in ["?utm_source=mail&x=a%20b", "?", ""] {
                for base in ["/posts", "/post"] {
                    let moved = reader.get(&format!("{base}/early{query}")).await;
                    let location = format!("{base}/late{query}");
                    assert_eq!((moved.status, moved.header("location")), (301, &*location));
                }
                let moved = reader.as_author("bob").get(&format!("/posts/early{query}")).await;
                assert_eq!(moved.header("location"), format!("/posts/late{query}"));
                let moved = reader.browse(&format!("/posts/early{query}")).await;
                assert_eq!(moved.header("location"), format!("/posts/late{query}"));
            }
        }
    }
}

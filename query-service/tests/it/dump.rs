//! Redis comes back from a dump, or its views stand still.

use testkit::{eventually, shared};

use crate::lists::slugs_of;
use crate::support::{Blog, database, from_memory};

#[tokio::test]
async fn what_is_older_than_was_read_before_is_stale_and_pages_are_folded() {
    let blog = Blog::start_without_memory().await;
    let withdrawn = blog.publish("withdrawn").await;
    let changed = blog.publish("changed").await;
    blog.project().await;
    let dump = blog.dump().await;
    blog.unpublish(withdrawn).await;
    blog.revise_title(changed, "On other things").await;
    blog.project().await;
    assert_eq!(blog.reader().get("/posts/withdrawn").await.status, 404);
    assert_eq!(blog.reader().get("/posts/changed").await.json()["title"], "On other things");
    let list = blog.reader().get("/posts").await;
    assert_eq!((slugs_of(&list), list.is_stale()), (vec!["changed".to_owned()], false));

    blog.restore(&dump).await;
    let page = blog.reader().get("/posts/changed").await;
    assert_eq!((page.source(), page.is_stale()), ("log", false));
    assert_eq!(page.json()["title"], "On other things");
    assert_eq!(blog.reader().get("/posts/withdrawn").await.status, 404);
    let list = blog.reader().get("/posts").await;
    assert_eq!((slugs_of(&list), list.is_stale()), (vec!["changed".to_owned()], true));

    blog.project().await;
    let page = blog.reader().get("/posts/changed").await;
    assert_eq!((page.source(), page.is_stale()), ("redis", false));
    let list = blog.reader().get("/posts").await;
    assert_eq!((slugs_of(&list), list.is_stale()), (vec!["changed".to_owned()], false));
}

#[tokio::test]
async fn without_postgres_an_old_row_is_stale_and_gives_way_to_a_newer_copy() {
    let database = database().await;
    let (postgres, database_url) = shared().postgres_proxy(database.name());
    let redis_url = shared().redis_url;
    let url = database.url();
    let blog = Blog::start_behind(url, &database_url, &redis_url, &[]).await;
    let withdrawn = blog.publish("withdrawn").await;
    let changed = blog.publish("changed").await;
    let unread = blog.publish("unread").await;
    blog.project().await;
    let dump = blog.dump().await;
    blog.unpublish(withdrawn).await;
    blog.revise_title(changed, "On other things").await;
    blog.revise_title(unread, "On other things").await;
    blog.project().await;
    eventually("it is withdrawn", async || {
        blog.reader().get("/posts/withdrawn").await.status == 404
    })
    .await;
    eventually("the change is kept", async || {
        let page = from_memory(async || blog.reader().get("/posts/changed").await).await;
        page.json()["title"] == "On other things"
    })
    .await;
    // The partitions are known to have come so far.
    assert_eq!(slugs_of(&blog.reader().get("/posts").await), ["unread", "changed"]);

    postgres.cut();
    blog.restore(&dump).await;
    let unread = format!("/posts/{unread}");
    eventually("the old row is found", async || {
        let page = blog.reader().get(&unread).await;
        (page.status, page.is_stale(), page.source()) == (200, true, "redis")
    })
    .await;
    eventually("memory's page has had its time", async || {
        blog.reader().get("/posts/changed").await.is_stale()
    })
    .await;
    let page = blog.reader().get("/posts/changed").await;
    assert_eq!((page.status, page.is_stale()), (200, true));
    assert_eq!(page.json()["title"], "On other things", "it was newer before");
    assert_eq!(blog.reader().get("/posts/withdrawn").await.status, 503);
    assert_eq!(blog.reader().get(&format!("/posts/{withdrawn}")).await.status, 503);
}

#[tokio::test]
async fn views_that_lag_for_longer_than_they_may_are_stale() {
    for options in
        [&["--views-lag-seconds", "1"][..], &["--views-lag-seconds", "1", "--memory-ms", "60000"]]
    {
        let blog = Blog::start_with(options).await;
        let id = blog.publish("writing").await;
        blog.project().await;
        let is_stale = async |path: &str| blog.reader().get(path).await.is_stale();
        assert!(!is_stale("/posts").await && !is_stale("/posts/writing").await);
        blog.revise_title(id, "On reading").await;
        eventually("the list is stale", async || is_stale("/posts").await).await;
        eventually("the page is stale", async || is_stale("/posts/writing").await).await;
        assert_eq!(blog.reader().get("/posts/writing").await.status, 200);
        eventually("the lag is measured", async || {
            let partition = blog.views.partition_of(id);
            let name = format!("\nviews_lag_seconds{{partition=\"{partition}\"}} ");
            blog.ops().get("/metrics").await.text.contains(&name)
        })
        .await;
        blog.project().await;
        assert!(!is_stale("/posts").await);
        eventually("the page is fresh", async || !is_stale("/posts/writing").await).await;
    }
}

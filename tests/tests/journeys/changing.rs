//! What happens to a post after it was published, as its readers see it.

use journeys::Blog;
use serde_json::json;
use testkit::eventually;

#[tokio::test]
async fn a_revision_appears() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");
    let reader = blog.reader();
    let post = anne.publish("On writing").await;
    eventually("it is in the list", async || reader.finds(&post, "").await).await;

    let changes = json!({ "title": "On rewriting", "content": "Again.", "tags": ["craft"] });
    let revised = anne.revise(&post, changes).await;

    assert_eq!((revised.version, &revised.slug), (post.version + 1, &post.slug));
    eventually("the page shows it", async || {
        let page = reader.page(post.slug()).await;
        assert_eq!(page.status, 200);
        page.body["title"] == "On rewriting" && page.body["content"] == "Again."
    })
    .await;
    eventually("its new list has it", async || reader.finds(&post, "&tag=craft").await).await;
    let list = reader.list("", 100).await.unwrap();
    assert_eq!(list.titles(), ["On rewriting"]);
    blog.agrees_with(&blog.log().await).await;
}

#[tokio::test]
async fn what_was_read_is_what_is_changed() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");
    let post = anne.publish("On writing").await;
    let etag = blog.reader().page(post.slug()).await.header("etag").to_owned();
    assert!(etag.starts_with("\"2-"), "{etag}");

    let weakened = format!("W/{etag}");
    let first = anne.revise_if(&post, &etag, json!({ "title": "a" })).await;
    let late = anne.revise_if(&post, &weakened, json!({ "title": "b" })).await;

    assert_eq!((first.status, first.header("etag")), (200, "\"3\""));
    assert_eq!((late.status, &late.body["code"]), (412, &json!("precondition_failed")));
    assert_eq!(late.body["version"], 3);
}

#[tokio::test]
async fn an_unpublished_post_is_gone_and_comes_back_with_its_first_date() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");
    let reader = blog.reader();
    let earlier = anne.publish("Earlier").await;
    let later = anne.publish("Later").await;
    let first = reader.page(earlier.slug()).await.body["published_at"].clone();
    assert!(first.is_string());

    let draft = anne.unpublish(&earlier).await;

    assert_eq!((draft.status.as_str(), &draft.slug), ("draft", &earlier.slug));
    eventually("readers do not find it", async || {
        let (by_slug, by_id) = (reader.page(earlier.slug()).await, reader.page(&earlier.id).await);
        (by_slug.status, by_id.status) == (404, 404)
    })
    .await;
    eventually("no list has it", async || {
        let list = reader.list("", 100).await;
        list.is_some_and(|list| list.titles() == ["Later"])
    })
    .await;
    assert!(draft.is_shown_by(&anne.reader().page(&draft.id).await), "not even its author sees it");

    anne.publish_again(&draft).await;

    // That it was not there is remembered until the publication is announced.
    eventually("it is there again", async || reader.can_read(&earlier).await).await;
    assert_eq!(reader.page(earlier.slug()).await.body["published_at"], first);
    eventually("it is where it was in the list", async || {
        let list = reader.list("", 100).await;
        list.is_some_and(|list| list.titles() == ["Later", "Earlier"])
    })
    .await;
    assert!(reader.can_read(&later).await);
}

#[tokio::test]
async fn a_deleted_post_is_gone_for_good() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");
    let reader = blog.reader();
    let (post, other) = (anne.publish("A mistake").await, anne.publish("Another").await);
    eventually("it is in the list", async || reader.finds(&post, "").await).await;

    let deleted = anne.delete(&post).await;
    // Asking once more is no mistake, and records nothing.
    assert_eq!(anne.delete(&post).await.position, deleted.position);

    eventually("its addresses say that it is gone", async || {
        let (by_slug, by_id) = (reader.page(post.slug()).await, reader.page(&post.id).await);
        (by_slug.status, by_id.status) == (410, 410)
    })
    .await;
    for list in ["", "&author=anne"] {
        eventually(&format!("it is not in the list `{list}`"), async || {
            let list = reader.list(list, 100).await;
            list.is_some_and(|list| list.ids() == [other.id.as_str()])
        })
        .await;
    }
    assert_eq!(anne.reader().page(&post.id).await.status, 410);
    assert_ne!(anne.publish("A mistake").await.slug, post.slug, "its slug was given away");
}

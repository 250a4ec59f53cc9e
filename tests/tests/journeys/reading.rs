//! What one has written, another reads.

use journeys::Blog;
use serde_json::json;
use testkit::eventually;

#[tokio::test]
async fn bob_reads_what_anne_published() {
    let blog = Blog::start().await;
    let (anne, bob) = (blog.sign_up("anne"), blog.sign_up("bob"));

    let post = anne.publish("On writing").await;

    // At once: nobody waits for the views.
    let page = bob.reader().page(post.slug()).await;
    assert!(post.is_shown_by(&page), "{page:?}");
    assert_eq!(page.body["author"], json!({ "id": "anne", "name": "ANNE" }));
    assert_eq!((&page.body["status"], &page.body["version"]), (&json!("published"), &json!(2)));
    assert!(bob.reader().can_read(&post).await);
    assert!(blog.reader().can_read(&post).await);
}

#[tokio::test]
async fn bob_finds_what_anne_published_in_every_list_it_belongs_to() {
    let blog = Blog::start().await;
    let (anne, carl) = (blog.sign_up("anne"), blog.sign_up("carl"));
    let body = json!({ "title": "On writing", "content": "Begin.", "tags": ["C++", "Tea"] });
    let post = anne.create(body).await;
    let other = carl.publish("On tea").await;

    let bob = blog.reader();
    for list in ["", "&tag=c-plus-plus", "&tag=C%2B%2B", "&tag=tea", "&author=anne"] {
        let finds = async || bob.finds(&post, list).await;
        eventually(&format!("Bob finds it in the list `{list}`"), finds).await;
    }
    eventually("Bob finds Carl's", async || bob.finds(&other, "&author=carl").await).await;

    for list in ["&tag=c-plus-plus", "&author=anne"] {
        assert!(!bob.finds(&other, list).await, "Carl's post is in the list `{list}`");
    }
    let cards = bob.list("&tag=c-plus-plus", 100).await.unwrap().cards;
    assert_eq!(cards[0]["tags"], json!(["C++", "Tea"]));
    assert!(cards[0].get("content").is_none(), "a card has no text: {cards:?}");
}

#[tokio::test]
async fn a_post_sent_by_the_form_of_the_article_is_read_as_the_article_says() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");

    let post = anne.send_form("On forms & co.").await;

    assert_eq!(post.slug(), "on-forms-co");
    let page = blog.reader().get("/post/on-forms-co").await;
    assert_eq!(page.status, 200);
    let content = journeys::Post::text("On forms & co.");
    let article = json!({
        "uid": post.id, "title": "On forms & co.", "content": content, "slug": "on-forms-co",
    });
    assert_eq!(page.body, article);
}

#[tokio::test]
async fn a_draft_is_seen_by_its_author_alone() {
    let blog = Blog::start().await;
    let (anne, bob) = (blog.sign_up("anne"), blog.sign_up("bob"));

    let draft = anne.draft("Not yet").await;
    let published = anne.publish("Ready").await;

    assert_eq!((draft.status.as_str(), &draft.slug), ("draft", &None));
    let page = anne.reader().page(&draft.id).await;
    assert!(draft.is_shown_by(&page), "{page:?}");
    assert_eq!(page.header("cache-control"), "private, no-store");
    // Once the later post is in the lists, the draft would be, too.
    let reader = blog.reader();
    eventually("the list is up to date", async || reader.finds(&published, "").await).await;
    for other in [bob.reader(), &reader] {
        assert_eq!(other.page(&draft.id).await.status, 404);
        assert_eq!(other.page("not-yet").await.status, 404);
        for list in ["", "&author=anne"] {
            assert!(!other.finds(&draft, list).await);
        }
    }

    let post = anne.publish_again(&draft).await;
    assert!(bob.reader().can_read(&post).await);
}

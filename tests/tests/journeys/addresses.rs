//! Slugs: found for every post, kept for ever.

use std::collections::HashSet;

use journeys::Blog;
use serde_json::json;
use testkit::eventually;

#[tokio::test]
async fn a_slug_that_was_left_leads_to_the_new_one() {
    let blog = Blog::start().await;
    let anne = blog.sign_up("anne");
    let reader = blog.reader();
    let post = anne.publish("On writing").await;
    // So that there is a view that may be behind.
    eventually("it is in the list", async || reader.finds(&post, "").await).await;

    let moved = anne.revise(&post, json!({ "slug": "the-craft" })).await;

    assert_eq!(moved.slug(), "the-craft");
    // Whoever knows the new address need not wait, least of all be sent back to the old one.
    let page = reader.page("the-craft").await;
    assert!(moved.is_shown_by(&page), "{page:?}");
    for (from, to) in
        [("/posts/on-writing", "/posts/the-craft"), ("/post/on-writing", "/post/the-craft")]
    {
        eventually("the old address leads to the new one", async || {
            let page = reader.get(from).await;
            page.status == 301 && page.header("location") == to
        })
        .await;
    }
    assert!(reader.can_read(&moved).await);

    anne.revise(&moved, json!({ "slug": "on-writing" })).await;
    eventually("it may go back", async || {
        reader.page("the-craft").await.header("location") == "/posts/on-writing"
    })
    .await;
    assert!(post.is_shown_by(&reader.page("on-writing").await));
}

#[tokio::test]
async fn posts_of_one_title_have_a_slug_each() {
    let blog = Blog::start().await;
    let (anne, bob) = (blog.sign_up("anne"), blog.sign_up("bob"));

    let first = anne.publish("On writing").await;
    let (second, third) = tokio::join!(bob.publish("On writing"), anne.publish("On writing"));

    assert_eq!(first.slug(), "on-writing");
    let posts = [first, second, third];
    let slugs: HashSet<&str> = posts.iter().map(|post| post.slug()).collect();
    assert_eq!(slugs.len(), 3, "{slugs:?}");
    for post in &posts {
        assert!(post.slug().starts_with("on-writing"), "{post:?}");
        assert!(blog.reader().can_read(post).await, "{post:?}");
    }
}

//! The text of a post as HTML, beside its page.

use domain::Partition;
use read_model::markdown;

use crate::support::{Post, Store, at, beginning};

#[tokio::test]
async fn the_text_of_a_page_is_kept_with_it() {
    let store = Store::new().await;
    let post = Post::drafted(10).published(20);
    store.project(&post, 20).await;

    let (card, html) = store.text(&post).await.unwrap();
    assert_eq!(html, markdown::to_html("Begin."));
    assert_eq!(card, post.stored_at(20).page.unwrap().card);
}

#[tokio::test]
async fn the_text_of_a_draft_is_not_kept() {
    let store = Store::new().await;
    let post = Post::drafted(10).published(20);
    store.project(&post, 10).await;
    assert_eq!(store.text(&post).await, None, "before it was published");
    store.project(&post, 20).await;
    assert!(store.text(&post).await.is_some());
}

#[tokio::test]
async fn a_text_goes_when_its_page_goes() {
    let store = Store::new().await;
    let post = Post::drafted(10).published(20).deleted(30);
    assert_eq!(store.text(&post).await, None, "before it was written");
    store.project(&post, 20).await;
    store.project(&post, 30).await;
    assert_eq!(store.text(&post).await, None, "after it was deleted");
}

#[tokio::test]
async fn a_text_of_an_epoch_that_is_over_is_none() {
    let store = Store::new().await;
    let post = Post::drafted(10).published(20);
    store.project(&post, 20).await;
    let found = store.watermark(Partition(0)).await;
    let new = beginning(Partition(0), "second", at(20), found);
    store.views.begin_epoch(&new).await.unwrap();
    assert_eq!(store.text(&post).await, None);
    store.fill(&post, 20).await;
    assert!(store.text(&post).await.is_some());
}

//! Kafka brings nothing.

use domain::Partition;

use crate::support::Blog;

#[tokio::test]
async fn events_appear_even_though_kafka_brings_nothing() {
    let blog = Blog::new().await;
    let projector = blog.project_impatiently().await;
    blog.has_begun().await;
    let epochs = blog.epochs().await;
    let ids = blog.publish_in_all(3).await;
    blog.views_agree_with_the_log().await;
    blog.delete(ids[0]).await;
    blog.revise(ids[1], "On reading").await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn a_long_silence_is_made_up_for_page_by_page() {
    let blog = Blog::new().await;
    blog.publish_in(Partition(0)).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
    let epochs = blog.epochs().await;
    for _ in 0..300 {
        let id = blog.publish_in(Partition(0)).await;
        blog.revise(id, "On reading").await;
    }
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn kafka_may_bring_late_what_was_read_from_the_log() {
    let blog = Blog::new().await;
    let projector = blog.project_impatiently().await;
    blog.has_begun().await;
    blog.publish_in_all(2).await;
    blog.views_agree_with_the_log().await;
    let (head, epochs) = (blog.log.head().await.unwrap(), blog.epochs().await);
    blog.relay(1..=head.0).await;
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

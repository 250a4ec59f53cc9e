//! Projectors come and go.

use domain::Position;
use testkit::eventually;

use crate::support::Blog;

#[tokio::test]
async fn a_projector_goes_on_where_another_vanished() {
    let blog = Blog::new().await;
    let first = blog.project().await;
    blog.has_begun().await;
    let epochs = blog.epochs().await;
    blog.publish_in_all(20).await;
    blog.relay_after(Position::ZERO).await;
    eventually("the first has done something", async || {
        blog.views.watermarks().await.unwrap()[3].as_ref().unwrap().point.position > Position::ZERO
    })
    .await;
    first.vanish().await;

    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(5).await;
    blog.relay_after(head).await;
    let second = blog.project().await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    second.stop().await;
}

#[tokio::test]
async fn two_projectors_share_the_work_and_one_takes_over_from_the_other() {
    let blog = Blog::new().await;
    let first = blog.project().await;
    blog.has_begun().await;
    let epochs = blog.epochs().await;
    let mut head = Position::ZERO;
    let second = blog.project().await;
    for round in 0..10 {
        let ids = blog.publish_in_all(2).await;
        blog.revise(ids[round % 8], "On reading").await;
        blog.relay_after(head).await;
        head = blog.log.head().await.unwrap();
    }
    blog.views_agree_with_the_log().await;
    first.stop().await;
    blog.publish_in_all(3).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    second.stop().await;
}

#[tokio::test]
async fn two_projectors_that_start_at_once_begin_each_partition_once() {
    let blog = Blog::new().await;
    blog.publish_in_all(5).await;
    let (first, second) = tokio::join!(blog.project(), blog.project());
    blog.views_agree_with_the_log().await;
    let epochs = blog.epochs().await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    first.stop().await;
    second.stop().await;
}

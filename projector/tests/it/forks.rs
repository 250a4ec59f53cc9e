//! The views, the log and Kafka tell different histories. The log is right.

use domain::{Message, Partition, Position};
use testkit::eventually;
use uuid::Uuid;

use crate::live::following;
use crate::support::{Blog, Projector};

const P: Partition = Partition(1);

#[tokio::test]
async fn views_that_are_further_than_the_log_are_begun_anew() {
    let blog = projected().await;
    let ahead = [("position", "1000".to_owned()), ("event", Uuid::new_v4().to_string())];
    blog.tamper(P, &ahead).await;
    let projector = blog.project().await;
    begun_anew(&blog, projector).await;
}

#[tokio::test]
async fn views_of_another_version_that_lie_where_ours_belong_are_begun_anew() {
    let blog = projected().await;
    blog.tamper(P, &[("epoch", "v1-an-older-program".to_owned())]).await;
    let projector = blog.project().await;
    begun_anew(&blog, projector).await;
}

#[tokio::test]
async fn views_that_stand_at_another_event_than_the_log_are_begun_anew() {
    let blog = projected().await;
    blog.tamper(P, &[("event", Uuid::new_v4().to_string())]).await;
    let projector = blog.project().await;
    begun_anew(&blog, projector).await;
}

#[tokio::test]
async fn so_are_they_where_the_log_has_gone_on_and_kafka_is_silent() {
    let blog = projected().await;
    blog.tamper(P, &[("event", Uuid::new_v4().to_string())]).await;
    blog.publish_in(P).await;
    let projector = blog.project_impatiently().await;
    begun_anew(&blog, projector).await;
}

#[tokio::test]
async fn so_are_they_where_the_log_has_gone_on_and_kafka_leaves_a_gap() {
    let blog = projected().await;
    blog.tamper(P, &[("event", Uuid::new_v4().to_string())]).await;
    let id = blog.publish_in(P).await;
    let last = blog.revise(id, "On reading").await;
    blog.relay(last.0..=last.0).await;
    let projector = blog.project().await;
    begun_anew(&blog, projector).await;
}

#[tokio::test]
async fn so_are_they_where_the_next_message_names_another_event() {
    let blog = projected().await;
    let head = blog.log.head().await.unwrap();
    blog.tamper(P, &[("event", Uuid::new_v4().to_string())]).await;
    blog.publish_in(P).await;
    blog.relay_after(head).await;
    let projector = blog.project().await;
    begun_anew(&blog, projector).await;
}

#[tokio::test]
async fn a_store_that_came_back_from_an_earlier_state_gets_new_views() {
    let blog = projected().await;
    let before = blog.epochs().await;
    let projector = blog.project().await;
    blog.raise_incarnation(2).await;
    blog.views_agree_with_the_log().await;
    let after = blog.epochs().await;
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));

    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, after);
    projector.stop().await;
}

#[tokio::test]
async fn views_of_a_later_life_than_the_stores_are_begun_anew() {
    let blog = projected().await;
    blog.tamper(P, &[("incarnation", "7".to_owned())]).await;
    let projector = blog.project().await;
    begun_anew(&blog, projector).await;
}

#[tokio::test]
async fn an_event_that_only_kafka_has_does_not_stay_in_the_views() {
    let blog = projected().await;
    blog.send(&following(&last_message(&blog).await)).await;
    let projector = blog.project().await;
    begun_anew(&blog, projector).await;
}

#[tokio::test]
async fn a_partition_stops_where_kafka_has_an_event_that_the_log_has_not() {
    let blog = projected().await;
    let last = last_message(&blog).await;
    stops_but_keeps_its_views(blog, following(&following(&last))).await;
}

#[tokio::test]
async fn a_partition_stops_where_kafka_is_far_beyond_the_log() {
    let blog = projected().await;
    let mut far = following(&last_message(&blog).await);
    far.previous.position.0 += 50_000;
    far.event.position.0 += 50_000;
    stops_but_keeps_its_views(blog, far).await;
}

#[tokio::test]
async fn a_partition_stops_where_kafka_has_another_event_than_the_log() {
    let blog = projected().await;
    let mut other = last_message(&blog).await;
    other.event.event_id = Uuid::new_v4();
    stops_but_keeps_its_views(blog, other).await;
}

#[tokio::test]
async fn a_partition_stops_where_kafka_is_of_a_later_life_than_the_store() {
    let blog = projected().await;
    let later = Message { incarnation: 9, ..following(&last_message(&blog).await) };
    stops_but_keeps_its_views(blog, later).await;
}

/// The partition stops at the message, without its views being begun anew; others go on; and so does it,
/// once the store's next life has begun.
async fn stops_but_keeps_its_views(blog: Blog, message: Message) {
    let epochs = blog.epochs().await;
    let projector = blog.project().await;
    blog.send(&message).await;
    let why = projector.halts().await;
    assert!(why.contains("Kafka has events that the log has not"), "{why}");
    assert_eq!(blog.epochs().await, epochs);

    let head = blog.log.head().await.unwrap();
    blog.publish_in(P).await;
    blog.publish_in(Partition(3)).await;
    blog.relay_after(head).await;
    blog.views_agree_but_for(P, Position(head.0 + 1)).await;
    assert_eq!(blog.epochs().await, epochs);

    blog.raise_incarnation(10).await;
    blog.views_agree_with_the_log().await;
    eventually("nothing stands still", async || projector.unready("folds").await.is_none()).await;
    projector.stop().await;
}

/// The partition gets a new epoch, and is right then and stays so.
async fn begun_anew(blog: &Blog, projector: Projector) {
    let before = blog.epochs().await;
    blog.views_agree_with_the_log().await;
    eventually("the partition is begun anew", async || {
        blog.epochs().await[usize::from(P.0)] != before[usize::from(P.0)]
    })
    .await;
    blog.views_agree_with_the_log().await;
    let after = blog.epochs().await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, after);
    projector.stop().await;
}

/// A blog whose views are up to date, and no projector.
async fn projected() -> Blog {
    let blog = Blog::new().await;
    blog.publish_in_all(3).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
    blog
}

async fn last_message(blog: &Blog) -> Message {
    let mut messages = blog.messages().await;
    messages.retain(|message| blog.log.partitions().of(&message.event.stream_id) == P);
    messages.pop().unwrap()
}

//! An event that this program cannot read stops its partition, and nothing else.

use domain::{Partition, Position, PostId};

use crate::support::{Blog, Projector};

const P: Partition = Partition(2);

#[tokio::test]
async fn an_unreadable_event_from_kafka_stops_its_partition_right_before_it() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let bad = with_an_unreadable_event(&blog, id).await;
    blog.relay_after(head).await;
    stopped_before(blog, projector, bad).await;
}

#[tokio::test]
async fn so_does_one_that_is_read_from_the_log() {
    let blog = Blog::new().await;
    let projector = blog.project_impatiently().await;
    let id = in_use(&blog).await;
    let bad = with_an_unreadable_event(&blog, id).await;
    stopped_before(blog, projector, bad).await;
}

#[tokio::test]
async fn so_does_one_in_a_gap() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let bad = with_an_unreadable_event(&blog, id).await;
    let head = blog.log.head().await.unwrap();
    blog.relay(head.0..=head.0).await;
    stopped_before(blog, projector, bad).await;
}

#[tokio::test]
async fn a_page_is_folded_up_to_its_unreadable_event() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    // Its row has to come from the log, which has the bad event already.
    blog.evict(id).await;
    let bad = with_an_unreadable_event(&blog, id).await;
    blog.relay_after(head).await;
    stopped_before(blog, projector, bad).await;
}

/// In one partition something happens, then something unreadable, then something else; and last of all
/// something in the same partition and in another.
async fn with_an_unreadable_event(blog: &Blog, id: PostId) -> Position {
    blog.revise(id, "On reading").await;
    blog.publish_in(P).await;
    let bad = blog.record_unreadable(id).await;
    blog.revise(id, "On both").await;
    blog.publish_in(Partition(0)).await;
    blog.publish_in(P).await;
    bad
}

async fn stopped_before(mut blog: Blog, projector: Projector, bad: Position) {
    let epochs = blog.epochs().await;
    let why = projector.halts().await;
    assert!(why.contains(&format!("partition 2 stopped before position {bad}: no event")), "{why}");
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    // Whatever was in other partitions has been seen.
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_but_for(P, bad).await;
    projector.stop().await;

    // A program that can read it goes on where this one stopped, long after Kafka has forgotten it.
    blog.has_another_topic().await;
    sqlx::query("UPDATE events SET event_version = '1'").execute(&blog.pool).await.unwrap();
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    assert_eq!(projector.unready("folds").await, None);
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

/// Waits until the projector has seen something in every partition. Returns a post in the one that is to
/// stop.
async fn in_use(blog: &Blog) -> PostId {
    blog.has_begun().await;
    let ids = blog.publish_in_all(1).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;
    ids[usize::from(P.0)]
}

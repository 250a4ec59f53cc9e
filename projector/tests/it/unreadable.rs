//! An event that this program cannot read sets its page aside, and nothing else.

use domain::{Claim, Partition, Position, PostId};
use serde_json::json;
use testkit::{eventually, own_redis};

use crate::support::{Blog, Projector};

const P: Partition = Partition(2);

#[tokio::test]
async fn an_unreadable_event_from_kafka_sets_its_page_aside() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let bad = with_an_unreadable_event(&blog, id).await;
    blog.relay_after(head).await;
    set_aside(blog, projector, id, bad).await;
}

#[tokio::test]
async fn so_does_one_that_is_read_from_the_log() {
    let blog = Blog::new().await;
    let projector = blog.project_impatiently().await;
    let id = in_use(&blog).await;
    let bad = with_an_unreadable_event(&blog, id).await;
    set_aside(blog, projector, id, bad).await;
}

#[tokio::test]
async fn so_does_one_in_a_gap() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let bad = with_an_unreadable_event(&blog, id).await;
    let head = blog.log.head().await.unwrap();
    // The last two events of either partition.
    blog.relay(head.0 - 3..=head.0).await;
    set_aside(blog, projector, id, bad).await;
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
    set_aside(blog, projector, id, bad).await;
}

#[tokio::test]
async fn so_is_a_page_that_is_made_and_broken_at_once() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let id = blog.publish_in(P).await;
    let bad = with_an_unreadable_event(&blog, id).await;
    blog.relay_after(head).await;
    set_aside(blog, projector, id, bad).await;
}

#[tokio::test]
async fn a_page_that_begins_with_an_unreadable_event_is_not_there() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let id = blog.id_in(P);
    let bad = blog.record_unreadable_beginning(id).await;
    blog.revise(id, "On both").await;
    blog.publish_in(P).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    assert_eq!(blog.views.row(id).await.unwrap().row, None);
    set_aside(blog, projector, id, bad).await;
}

#[tokio::test]
async fn a_slug_that_a_page_takes_while_it_is_set_aside_names_it_all_the_same() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let bad = blog.record_unreadable(id).await;
    let slug = format!("on-slugs-{}", id.random_digits());
    let changes = json!({"title": "On slugs"});
    let taken = blog.record(id, json!({"revised": {"changes": changes, "slug": slug}})).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    let claim = blog.views.claim_of(1, &slug.parse().unwrap()).await.unwrap();
    assert_eq!(claim, Some(Claim { post_id: id, position: taken }));
    projector.stop().await;
}

#[tokio::test]
async fn filling_sets_it_aside_again_as_it_was() {
    let redis = own_redis().await;
    let blog = Blog::with_redis(&redis.url()).await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let bad = with_an_unreadable_event(&blog, id).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    let before = blog.epochs().await;

    redis::cmd("FLUSHALL").exec_async(&mut blog.redis().await.unwrap()).await.unwrap();
    eventually("all is begun anew", async || {
        let marks = blog.views.watermarks().await.unwrap();
        let other = |(mark, epoch): (Option<read_model::Watermark>, &String)| {
            mark.is_some_and(|mark| mark.epoch != *epoch)
        };
        marks.into_iter().zip(&before).all(other)
    })
    .await;
    set_aside(blog, projector, id, bad).await;
}

#[tokio::test]
async fn a_page_is_not_set_aside_before_that_is_on_record() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    let id = in_use(&blog).await;
    let epochs = blog.epochs().await;
    let head = blog.log.head().await.unwrap();
    blog.takes_nothing_on_record().await;
    blog.publish_in(P).await;
    let bad = blog.record_unreadable(id).await;
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_but_for(P, bad).await;
    eventually("it says why", async || {
        projector.unready("redis").await.is_some_and(|why| why.contains("quarantine"))
    })
    .await;
    // Others go on meanwhile, with what comes after.
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(2).await;
    blog.relay_after(head).await;
    blog.views_agree_but_for(P, bad).await;
    assert_eq!(blog.views.quarantined(P).await.unwrap(), []);

    blog.takes_all_on_record().await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    assert_eq!(blog.on_record().await, [bad]);
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn two_projectors_set_a_page_aside_once() {
    let blog = Blog::new().await;
    let (first, second) = (blog.project_impatiently().await, blog.project_impatiently().await);
    let id = in_use(&blog).await;
    let head = blog.log.head().await.unwrap();
    let bad = with_an_unreadable_event(&blog, id).await;
    blog.relay_after(head).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    assert_eq!(blog.on_record().await, [bad]);
    first.stop().await;
    set_aside(blog, second, id, bad).await;
}

/// In one partition something happens, then something unreadable, then something else; and last of all
/// something in the same partition and in another.
pub(crate) async fn with_an_unreadable_event(blog: &Blog, id: PostId) -> Position {
    blog.revise(id, "On reading").await;
    blog.publish_in(P).await;
    let bad = blog.record_unreadable(id).await;
    blog.revise(id, "On both").await;
    blog.publish_in(Partition(0)).await;
    blog.publish_in(P).await;
    bad
}

/// The page stays as it was before the event, whatever comes, and all others go on; and it takes what it
/// missed when a program comes that can read it.
async fn set_aside(mut blog: Blog, projector: Projector, id: PostId, bad: Position) {
    blog.views_agree_where(&[(id, bad)], &[]).await;
    let epochs = blog.epochs().await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(1).await;
    blog.revise(id, "On neither").await;
    // Unreadable as well, and nothing new.
    blog.record_unreadable(id).await;
    blog.relay_after(head).await;
    // Whatever was in other partitions has been seen.
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_where(&[(id, bad)], &[]).await;
    assert_eq!(blog.on_record().await, [bad]);
    eventually("it is well, though not quite", async || {
        let (status, health) = projector.health().await;
        status == 200 && health["degraded"] == true
    })
    .await;
    let why = projector.unready("quarantine").await.unwrap();
    assert!(why.contains("1 pages are set aside"), "{why}");
    assert_eq!(projector.unready("folds").await, None);
    projector.stop().await;

    // A program that can read it tries once more when it starts, long after Kafka has forgotten the event.
    blog.has_another_topic().await;
    blog.learns_to_read().await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    blog.nothing_is_on_record().await;
    eventually("all is well", async || projector.unready("quarantine").await.is_none()).await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

/// Waits until the projector has seen something in every partition. Returns a post in the one where something
/// unreadable is to happen.
pub(crate) async fn in_use(blog: &Blog) -> PostId {
    blog.has_begun().await;
    let ids = blog.publish_in_all(1).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;
    ids[usize::from(P.0)]
}

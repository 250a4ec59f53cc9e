//! Events come through Kafka: once, more than once, not at all, or in another order.

use domain::{Message, Partition, Point, Position};
use testkit::eventually;
use uuid::Uuid;

use crate::support::{Blog, Projector};

#[tokio::test]
async fn events_from_kafka_appear_in_the_views() {
    let (blog, projector) = blog_in_use().await;
    let epochs = blog.epochs().await;
    let head = blog.log.head().await.unwrap();
    let ids = blog.publish_in_all(3).await;
    blog.revise(ids[0], "On reading").await;
    blog.unpublish(ids[1]).await;
    blog.delete(ids[2]).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn a_new_slug_names_its_post() {
    let (blog, projector) = blog_in_use().await;
    let head = blog.log.head().await.unwrap();
    let ids = blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    for found in blog.views.rows(&ids).await.unwrap() {
        let row = found.row;
        let slug = row.unwrap().page.unwrap().slug.unwrap();
        assert!(ids.contains(&blog.views.claim_of(1, &slug).await.unwrap().unwrap().post_id));
    }
    projector.stop().await;
}

#[tokio::test]
async fn messages_sent_again_change_nothing() {
    let (blog, projector) = blog_in_use().await;
    let epochs = blog.epochs().await;
    for _ in 0..2 {
        let ids = blog.publish_in_all(2).await;
        blog.delete(ids[0]).await;
        blog.relay_after(Position::ZERO).await;
        blog.relay_after(Position::ZERO).await;
        blog.views_agree_with_the_log().await;
    }
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn what_kafka_leaves_out_is_read_from_the_log() {
    let (blog, projector) = blog_in_use().await;
    let epochs = blog.epochs().await;
    let ids = blog.publish_in_all(20).await;
    let last = blog.log.head().await.unwrap();
    for id in &ids[ids.len() - 4..] {
        blog.revise(*id, "On reading").await;
    }
    // One message for each partition.
    blog.relay_after(last).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn messages_in_the_wrong_order_do_no_harm() {
    let (blog, projector) = blog_in_use().await;
    let epochs = blog.epochs().await;
    let ids = blog.publish_in_all(5).await;
    for id in ids {
        blog.revise(id, "On reading").await;
    }
    for message in blog.messages().await.iter().rev() {
        blog.send(message).await;
    }
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn a_row_that_was_evicted_is_made_anew_by_its_next_event() {
    let (blog, projector) = blog_in_use().await;
    let head = blog.log.head().await.unwrap();
    let id = blog.publish_in(Partition(1)).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    blog.evict(id).await;
    let revised = blog.revise(id, "On reading").await;
    blog.relay(revised.0..=revised.0).await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

#[tokio::test]
async fn events_from_kafka_appear_while_postgres_is_away() {
    let mut blog = Blog::new().await;
    let proxy = blog.puts_a_proxy_before_postgres();
    let projector = blog.project().await;
    blog.has_begun().await;
    let ids = blog.publish_in_all(1).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;
    proxy.cut();
    eventually("it says so", async || projector.unready("postgres").await.is_some()).await;
    let head = blog.log.head().await.unwrap();
    for id in ids {
        blog.revise(id, "On reading").await;
    }
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    proxy.restore();
    projector.stop().await;
}

#[tokio::test]
async fn every_number_that_is_told_stands_in_the_table_and_is_explained() {
    let (_blog, projector) = blog_in_use().await;
    let numbers = projector.metrics().await;
    let told = |line: &'_ str, word: &str| {
        let rest = line.strip_prefix(word)?;
        rest.split(' ').next().filter(|name| name.starts_with("projector_")).map(str::to_owned)
    };
    let typed: Vec<String> = numbers.lines().filter_map(|line| told(line, "# TYPE ")).collect();
    let explained: Vec<String> = numbers.lines().filter_map(|line| told(line, "# HELP ")).collect();
    for name in &typed {
        assert!(projector::METRICS.iter().any(|metric| metric.name == name), "{name}");
        assert!(explained.contains(name), "{name}");
    }
    for name in [
        "projector_watermark",
        "projector_head",
        "projector_events_applied_total",
        "projector_batches_total",
        "projector_batch_size",
        "projector_commit_to_visible_seconds",
        "projector_judgements_total",
        "projector_tailed_partitions",
        "projector_unfilled_below",
        "projector_quarantined_pages",
    ] {
        assert!(typed.iter().any(|typed| typed == name), "{name} is missing from\n{numbers}");
    }
    projector.stop().await;
}

#[tokio::test]
async fn a_message_that_is_not_ours_keeps_nobody_waiting() {
    let (blog, projector) = blog_in_use().await;
    let head = blog.log.head().await.unwrap();
    let epochs = blog.epochs().await;
    let ids = blog.publish_in_all(1).await;
    let ours = blog.messages().await.pop().unwrap();
    for partition in Blog::partitions() {
        blog.send_raw(partition, &[], Some("{}")).await;
        blog.send_raw(partition, &[("ce_type", "com.example.sold.v1".to_owned())], None).await;
        blog.send_raw(partition, &ours.headers(), None).await;
        let mut damaged = ours.headers();
        damaged.retain(|(name, _)| *name != "previous");
        blog.send_raw(partition, &damaged, Some(&ours.event.payload.json)).await;
        // Ours, but of another partition.
        if blog.views.partition_of(ids[3]) != partition {
            blog.send_to(partition, &ours).await;
        }
    }
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    assert_eq!(projector.unready("folds").await, None);
    projector.stop().await;
}

#[tokio::test]
async fn messages_of_an_earlier_incarnation_are_void() {
    let blog = Blog::new().await;
    blog.raise_incarnation(2).await;
    let id = blog.publish_in(Partition(2)).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
    let epochs = blog.epochs().await;

    // What the log has not kept follows what it has, in one batch.
    blog.revise(id, "On reading").await;
    let kept = blog.messages().await.pop().unwrap();
    let void = following(&Message { incarnation: 1, ..kept.clone() });
    blog.send(&kept).await;
    blog.send(&void).await;
    blog.send(&following(&void)).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;

    let next = blog.revise(id, "On both").await;
    blog.relay(next.0..=next.0).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn an_event_whose_message_is_a_stub_is_read_from_the_log() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    blog.has_begun().await;
    let id = blog.publish_in(Partition(1)).await;
    let first = blog.revise(id, "On stubs").await;
    blog.publish_in(Partition(1)).await;
    let last = blog.revise(id, "On writing").await;
    blog.publish_in_all(1).await;
    blog.relay_as_stubs(Position::ZERO, &[Position(1), first, last]).await;
    blog.views_agree_with_the_log().await;
    // At the very end, too, where no later message shows a gap.
    let head = blog.log.head().await.unwrap();
    let end = blog.revise(id, "On ends").await;
    blog.relay_as_stubs(head, &[end]).await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

/// A message that says the same once more, as an event of its own.
pub(crate) fn following(message: &Message) -> Message {
    let mut next = message.clone();
    next.previous = message.event.point();
    next.event.position = Position(next.previous.position.0 + 1);
    next.event.event_id = Uuid::new_v4();
    next.event.sequence += 1;
    assert_ne!(next.event.point(), Point::START);
    next
}

/// One whose projector has seen something in every partition.
async fn blog_in_use() -> (Blog, Projector) {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    blog.has_begun().await;
    blog.publish_in_all(1).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;
    (blog, projector)
}

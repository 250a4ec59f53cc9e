//! Redis forgets: all of it, or what came last.

use domain::{Partition, Position};
use redis::AsyncCommands as _;
use serde_json::json;
use testkit::{eventually, own_redis};

use crate::support::Blog;

#[tokio::test]
async fn what_redis_has_lost_is_filled_again_in_quiet_partitions_too() {
    let redis = own_redis().await;
    let blog = Blog::with_redis(&redis.url()).await;
    let ids = blog.publish_in_all(30).await;
    for id in &ids[..9] {
        blog.revise(*id, "On reading").await;
    }
    blog.delete(ids[0]).await;
    // More than one part of filling.
    for _ in 0..120 {
        blog.publish_in(Partition(1)).await;
    }
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    let before = blog.epochs().await;

    flush(&blog).await;
    let head = blog.log.head().await.unwrap();
    blog.revise(ids[1], "On both").await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    let after = blog.epochs().await;
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    projector.stop().await;
}

#[tokio::test]
async fn a_second_loss_during_the_first_recovery_is_recovered_from() {
    let redis = own_redis().await;
    let blog = Blog::with_redis(&redis.url()).await;
    let ids = blog.publish_in_all(20).await;
    for _ in 0..300 {
        blog.publish_in(Partition(1)).await;
    }
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    for id in &ids[..3] {
        flush(&blog).await;
        let halfway = async || {
            let marks = blog.views.watermarks().await.unwrap();
            marks[1].as_ref().is_some_and(|mark| {
                // Begun, and something has been filled.
                mark.unfilled_below.is_some_and(|below| below <= mark.point.position)
            })
        };
        eventually("a part is filled and a part is not", halfway).await;
        let head = blog.log.head().await.unwrap();
        blog.revise(*id, "On reading").await;
        blog.relay_after(head).await;
    }
    flush(&blog).await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

#[tokio::test]
async fn long_pages_are_folded_and_filled_one_at_a_time() {
    let redis = own_redis().await;
    let blog = Blog::with_redis(&redis.url()).await;
    let ids = blog.publish_in_all(1).await;
    // More than one read may return, in each of several pages.
    let text = "x".repeat(200_000);
    for id in ids.iter().chain(&ids).chain(&ids) {
        for _ in 0..10 {
            blog.record(*id, json!({"revised": {"changes": {"content": text}}})).await;
        }
    }
    for _ in 0..5 {
        blog.publish_in(Partition(1)).await;
    }
    let (read, count) = blog.log.first_histories(&ids).await.unwrap();
    assert_eq!((count, read.events.len()), (1, 32));
    let short = [blog.publish_in(Partition(0)).await, blog.publish_in(Partition(0)).await];
    assert_eq!(blog.log.first_histories(&short).await.unwrap().1, 2);

    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    flush(&blog).await;
    blog.has_begun().await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(2).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

#[tokio::test]
async fn views_come_back_after_redis_was_killed_and_came_back_empty() {
    let mut redis = own_redis().await;
    let blog = Blog::with_redis(&redis.url()).await;
    blog.publish_in_all(10).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;

    redis.kill().unwrap();
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(2).await;
    blog.relay_after(head).await;
    eventually("the projector says so", async || projector.unready("redis").await.is_some()).await;
    redis.restart().await.unwrap();
    blog.views_agree_with_the_log().await;
    eventually("the projector is well", async || projector.unready("redis").await.is_none()).await;
    projector.stop().await;
}

#[tokio::test]
async fn what_changed_last_is_filled_first() {
    let blog = Blog::new().await;
    // Where filling gets to last, it cannot go on, so that what it has done until then can be seen.
    let oldest = blog.publish_in(Partition(2)).await;
    blog.record_unreadable(oldest).await;
    blog.takes_nothing_on_record().await;
    let old = blog.publish_in(Partition(2)).await;
    let mut newer = vec![];
    for _ in 0..150 {
        newer.push(blog.publish_in(Partition(2)).await);
    }
    blog.revise(old, "On reading").await;
    let projector = blog.project().await;
    eventually("it cannot go on", async || {
        projector.unready("redis").await.is_some_and(|why| why.contains("quarantine"))
    })
    .await;
    let unfilled = blog.watermark(Partition(2)).await.unfilled_below.unwrap();
    assert!(unfilled > Position::ZERO && unfilled < blog.log.head().await.unwrap());
    for id in [old, newer[149]] {
        assert!(blog.views.row(id).await.unwrap().row.is_some());
    }
    assert!(blog.views.row(oldest).await.unwrap().row.is_none());
    projector.stop().await;
}

#[tokio::test]
async fn views_that_are_put_back_to_an_earlier_state_catch_up() {
    let blog = Blog::new().await;
    let ids = blog.publish_in_all(5).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    let dump = dump(&blog).await;
    let (head, epochs) = (blog.log.head().await.unwrap(), blog.epochs().await);
    blog.unpublish(ids[0]).await;
    blog.revise(ids[1], "On reading").await;
    blog.delete(ids[2]).await;
    blog.publish_in_all(5).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;

    // The projector runs on, and believes that the views are where it left them.
    restore(&blog, &dump).await;
    let head = blog.log.head().await.unwrap();
    for id in &ids[4..8] {
        blog.revise(*id, "On both").await;
    }
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;

    restore(&blog, &dump).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn rows_alone_may_be_lost_at_any_time() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    blog.has_begun().await;
    let ids = blog.publish_in_all(5).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;
    let head = blog.log.head().await.unwrap();
    for id in &ids {
        blog.evict(*id).await;
        blog.revise(*id, "On reading").await;
        blog.unpublish(*id).await;
    }
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

async fn flush(blog: &Blog) {
    redis::cmd("FLUSHALL").exec_async(&mut blog.redis().await.unwrap()).await.unwrap();
}

/// Every key of the blog's partitions with its value.
async fn dump(blog: &Blog) -> Vec<(String, Vec<u8>)> {
    let mut redis = blog.redis().await.unwrap();
    let mut dump = vec![];
    for partition in Blog::partitions() {
        for key in redis.keys::<_, Vec<String>>(blog.key(partition, "*")).await.unwrap() {
            let value = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
            dump.push((key, value));
        }
    }
    dump
}

/// Puts everything back in one step, and takes away what was not there.
async fn restore(blog: &Blog, dump: &[(String, Vec<u8>)]) {
    let mut redis = blog.redis().await.unwrap();
    let mut pipe = redis::pipe();
    pipe.atomic();
    for partition in Blog::partitions() {
        for key in redis.keys::<_, Vec<String>>(blog.key(partition, "*")).await.unwrap() {
            pipe.del(key);
        }
    }
    for (key, value) in dump {
        pipe.cmd("RESTORE").arg(key).arg(0).arg(value);
    }
    pipe.exec_async(&mut redis).await.unwrap();
}

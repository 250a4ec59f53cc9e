//! In a cluster of Redis nodes, what one of them lacks is a matter of its partitions alone.

use domain::Partition;
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use testkit::{RedisCluster, eventually, own_redis_cluster, patient_connection};

use crate::support::{Blog, SLOWLY};

#[tokio::test]
async fn writes_that_a_failover_forgets_are_found_missing_and_read_from_the_log() {
    let mut cluster = own_redis_cluster(true).await;
    let blog = Blog::with_redis(&cluster.url_of_all()).await;
    let ids = blog.publish_in_all(5).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    let epochs = blog.epochs().await;

    let lost = owner(&cluster, &blog, Partition(0)).await;
    cluster.cut_off_replica(lost).await;
    let head = blog.log.head().await.unwrap();
    let at = blog.watermark(Partition(0)).await.point.position;
    for id in &ids {
        blog.revise(*id, "Forgotten").await;
    }
    blog.relay_after(head).await;
    eventually("it is all acknowledged", async || {
        let mut moved = vec![];
        for partition in Blog::partitions() {
            moved.push(blog.watermark(partition).await.point.position > head);
        }
        moved == [true; 4]
    })
    .await;

    let mut replica = reader_of_replica(&cluster, lost).await;
    let key = blog.key(Partition(0), "watermark");
    let known: u64 = replica.hget(key, "position").await.unwrap();
    assert_eq!(known, at.0, "the replica has lost nothing");

    cluster.master(lost).kill().unwrap();
    cluster.has_taken_over(lost).await;
    // No event comes along to show what is missing.
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn a_partition_whose_slot_moves_holds_up_no_other_and_catches_up() {
    let cluster = own_redis_cluster(false).await;
    let blog = Blog::with_redis(&cluster.url()).await;
    let ids = blog.publish_in_all(5).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    let epochs = blog.epochs().await;

    let from = owner(&cluster, &blog, Partition(0)).await;
    let slot = cluster.slot_of(&blog.key(Partition(0), "")).await;
    let moving = cluster.begin_move(slot, (from + 1) % 3).await;
    moving.move_keys(3).await;
    let before = blog.watermark(Partition(0)).await;
    // The second time they would wait behind what could not be written the first time.
    for title in ["On reading", "On both"] {
        let head = blog.log.head().await.unwrap();
        for id in &ids {
            blog.revise(*id, title).await;
        }
        blog.relay_after(head).await;
        eventually("the others go on", async || {
            blog.views.watermarks().await.is_ok_and(|watermarks| {
                watermarks[1..].iter().all(|mark| mark.as_ref().unwrap().point.position > head)
            })
        })
        .await;
    }
    eventually("the projector says so", async || projector.unready("redis").await.is_some()).await;
    assert_eq!(blog.watermark(Partition(0)).await, before);

    moving.finish().await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    eventually("the projector is well", async || projector.unready("redis").await.is_none()).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_rebuild_writes_again_what_a_failover_forgets_of_it() {
    let mut cluster = own_redis_cluster(true).await;
    let mut blog = Blog::with_redis(&cluster.url_of_all()).await;
    blog.publish_in_all(30).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;

    let rebuild = blog.tool(&SLOWLY);
    blog.has_written_parts(2).await;
    let new = blog.views.of_generation(2);
    let old = std::mem::replace(&mut blog.views, new);
    let lost = owner(&cluster, &blog, Partition(0)).await;
    let notes = blog.key(Partition(0), &format!("built:{}", blog.epochs().await[0]));
    blog.views = old;
    cluster.cut_off_replica(lost).await;
    let mut replica = reader_of_replica(&cluster, lost).await;
    let known: u32 = replica.bitcount(notes).await.unwrap();
    blog.has_written_parts(known + 1).await;

    cluster.master(lost).kill().unwrap();
    cluster.has_taken_over(lost).await;
    rebuild.succeeds().await;
    blog.follow_active().await;
    assert_eq!(blog.views.generation(), 2);
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

/// What the replica of a master knows, as it would tell readers.
async fn reader_of_replica(cluster: &RedisCluster, master: usize) -> MultiplexedConnection {
    let mut replica = patient_connection(&cluster.replica(master).url()).await.unwrap();
    redis::cmd("READONLY").exec_async(&mut replica).await.unwrap();
    replica
}

async fn owner(cluster: &RedisCluster, blog: &Blog, partition: Partition) -> usize {
    cluster.first_owner(cluster.slot_of(&blog.key(partition, "")).await)
}

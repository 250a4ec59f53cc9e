//! On a Redis Cluster the same is promised, while slots move and masters are replaced.

use domain::{Partition, Partitions};
use journeys::{Blog, Ground, Load, Onlooker};
use read_model::{KeySpace, Views};
use testkit::{
    RedisCluster, connection_to, eventually, eventually_some, own_redis_cluster, unique_name,
};

/// As many as every blog of these tests has.
const PARTITIONS: u16 = 4;

#[tokio::test]
async fn in_a_cluster_a_slot_moves_and_a_master_forgets_and_readers_notice_nothing() {
    let cluster = own_redis_cluster(false).await;
    let prefix = unique_name("blog");
    let blog = start(&cluster, &prefix).await;
    let authors = blog.sign_up_all(["anne", "bob", "carl", "dora"]);
    let mut load = Load::begin(&authors, 200);
    let published = load.published();
    let onlookers =
        [Onlooker::of(&blog.reader(), &published), Onlooker::of(authors[0].reader(), &published)];

    load.reached(50).await;
    let slot = cluster.slot_of(&tag(&prefix, 0)).await;
    let to = (cluster.first_owner(slot) + 1) % 3;
    let moving = cluster.begin_move(slot, to).await;
    moving.move_keys(7).await;
    load.reached(100).await;
    onlookers[0].reads_on(100).await;
    moving.finish().await;
    let outcome = load.end().await;
    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    blog.has_kept_its_word(&outcome).await;

    let asking = async || epochs(&cluster, &prefix).await;
    let before = eventually_some("the cluster says what it has", asking).await;
    let mut forgetful = connection_to(&cluster.url(), &tag(&prefix, 1)).await.expect("no master");
    let mut affected = vec![];
    for partition in 0..PARTITIONS {
        let key = format!("{}watermark", tag(&prefix, partition));
        let here = ::redis::cmd("EXISTS").arg(&key).query_async(&mut forgetful).await;
        affected.push(here == Ok(1));
    }
    ::redis::cmd("FLUSHALL").exec_async(&mut forgetful).await.expect("not flushed");
    eventually("what was forgotten is begun anew, and nothing else", async || {
        let Some(after) = epochs(&cluster, &prefix).await else { return false };
        let anew = |number: usize| after[number].is_some() && after[number] != before[number];
        (0..usize::from(PARTITIONS)).all(|number| anew(number) == affected[number])
    })
    .await;
    blog.has_kept_its_word(&outcome).await;
    for onlooker in onlookers {
        onlooker.reads_on(100).await;
        onlooker.saw_nothing_wrong().await;
    }
}

#[tokio::test]
async fn while_a_master_of_a_cluster_is_replaced_authors_and_readers_go_on() {
    let mut cluster = own_redis_cluster(true).await;
    let prefix = unique_name("blog");
    let blog = start(&cluster, &prefix).await;
    let authors = blog.sign_up_all(["anne", "bob", "carl", "dora"]);
    let mut load = Load::begin(&authors, 200);
    let published = load.published();
    let onlookers =
        [Onlooker::of(&blog.reader(), &published), Onlooker::of(authors[0].reader(), &published)];

    load.reached(50).await;
    let master = cluster.first_owner(cluster.slot_of(&tag(&prefix, 0)).await);
    cluster.master(master).kill().expect("the master could not be killed");
    for onlooker in &onlookers {
        onlooker.reads_on(100).await;
    }
    let outcome = load.end().await;
    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    cluster.has_taken_over(master).await;
    blog.has_kept_its_word(&outcome).await;
    for onlooker in onlookers {
        onlooker.reads_on(100).await;
        onlooker.saw_nothing_wrong().await;
    }
}

async fn start(cluster: &RedisCluster, prefix: &str) -> Blog {
    let ground = Ground { redis_url: cluster.url_of_all(), ..Ground::shared().await };
    Blog::start_on(ground, &[("INKSTREAM_REDIS_PREFIX", prefix)]).await
}

/// What all keys of a partition begin with.
fn tag(prefix: &str, partition: u16) -> String {
    format!("{{{prefix}:g1:{}}}:", Partition(partition))
}

/// The epoch of each partition, if the cluster answers.
async fn epochs(cluster: &RedisCluster, prefix: &str) -> Option<Vec<Option<String>>> {
    let keys = KeySpace::new(prefix).expect("not a prefix");
    let partitions = Partitions::new(PARTITIONS).expect("not a number of partitions");
    let views = Views::new(&cluster.url(), keys, partitions, std::time::Duration::from_secs(5));
    let marks = views.expect("not an address").watermarks().await.ok()?;
    Some(marks.into_iter().map(|mark| Some(mark?.epoch)).collect())
}

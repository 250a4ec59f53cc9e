//! A master that is away takes only its own partitions with it, until its replica has taken its place.

use std::time::Duration;

use domain::{Partition, Partitions, Point, Position};
use read_model::{Advance, Change, Flag, Guarded, Heard, KeySpace, Views, Visibility};
use testkit::{
    RedisCluster, Signal, eventually, eventually_within, own_redis_cluster, unique_name,
};
use tokio::sync::mpsc;

use crate::support::{EPOCH, Post, advance, beginning};

const COUNT: u16 = 12;

/// Views of some partitions in a cluster of their own, and to which master each belongs.
struct Lot {
    cluster: RedisCluster,
    views: Views,
    owners: Vec<usize>,
    /// How far each has come.
    at: Vec<u64>,
}

impl Lot {
    async fn new(time_limit: Duration) -> Self {
        let cluster = own_redis_cluster(true).await;
        let prefix = unique_name("views");
        let views = Views::new(
            &cluster.url(),
            KeySpace::new(&prefix).unwrap(),
            Partitions::new(COUNT).unwrap(),
            time_limit,
        )
        .unwrap();
        let mut owners = vec![];
        for partition in 0..COUNT {
            let new = beginning(Partition(partition), EPOCH, Point::START, None);
            assert_eq!(views.begin_epoch(&new).await.unwrap(), Guarded::Written);
            let slot = cluster.slot_of(&format!("{{{prefix}:g1:{partition}}}")).await;
            owners.push(cluster.first_owner(slot));
        }
        assert!((0..3).all(|master| owners.contains(&master)), "{owners:?}");
        Self { cluster, views, owners, at: vec![0; COUNT.into()] }
    }

    /// Moves every partition one event on, and tells which have moved. One that a failover forgot altogether is begun
    /// again instead, as the projector does.
    async fn go_on(&mut self) -> Vec<bool> {
        let before = self.at.clone();
        let next =
            |(partition, at): (u16, &u64)| advance(Partition(partition), *at, at + 1, vec![]);
        let advances: Vec<Advance> = (0..).zip(&before).map(next).collect();
        let answers = self.views.advance(&advances).await.unwrap();
        for ((partition, answer), at) in (0..).map(Partition).zip(answers).zip(&mut self.at) {
            match answer {
                Ok(Guarded::Written) => *at += 1,
                // It was written before, or forgotten in the failover.
                Ok(Guarded::Refused(Some(found))) => *at = found.point.position.0,
                Ok(Guarded::Refused(None)) => {
                    *at = 0;
                    let again = beginning(partition, EPOCH, Point::START, None);
                    // If it fails, it is asked for again the next time.
                    let _ = self.views.begin_epoch(&again).await;
                }
                Err(_) => {}
            }
        }
        self.at.iter().zip(before).map(|(at, before)| *at > before).collect()
    }

    fn of_others_than(&self, master: usize) -> Vec<bool> {
        self.owners.iter().map(|owner| *owner != master).collect()
    }
}

#[tokio::test]
async fn the_partitions_of_a_killed_master_fail_alone_until_its_replica_has_them() {
    let mut lot = Lot::new(Duration::from_secs(5)).await;
    assert_eq!(lot.go_on().await, [true; COUNT as usize]);
    // The one whose address is all that we were told.
    lot.cluster.master(0).kill().unwrap();
    assert_eq!(lot.go_on().await, lot.of_others_than(0));
    let found = lot.views.watermarks_that_answer().await;
    let answered: Vec<bool> = found.iter().map(Result::is_ok).collect();
    assert_eq!(answered, lot.of_others_than(0));
    assert!(lot.views.watermarks().await.is_err());

    lot.cluster.has_taken_over(0).await;
    // The replica has never heard of the script.
    eventually("all partitions move", async || lot.go_on().await == [true; COUNT as usize]).await;
    assert!(lot.views.watermarks().await.is_ok());
}

#[tokio::test]
async fn nobody_waits_long_for_a_master_that_hangs() {
    let limit = Duration::from_secs(60);
    let mut lot = Lot::new(limit).await;
    assert_eq!(lot.go_on().await, [true; COUNT as usize]);
    lot.cluster.master(1).process().signal(Signal::Stop).unwrap();
    // Whoever had asked before it was noticed would wait for a minute.
    eventually_within(limit / 2, "all partitions move", async || {
        let all = tokio::time::timeout(Duration::from_secs(3), lot.go_on()).await;
        all.is_ok_and(|moved| moved == [true; COUNT as usize])
    })
    .await;
    lot.cluster.master(1).process().signal(Signal::Continue).unwrap();
    eventually("it has followed its replica", async || lot.go_on().await == [true; COUNT as usize])
        .await;
}

#[tokio::test]
async fn changes_are_heard_from_another_node_once_one_is_away() {
    let mut lot = Lot::new(Duration::from_secs(5)).await;
    lot.cluster.master(0).kill().unwrap();
    lot.cluster.has_taken_over(0).await;
    let (tell, mut heard) = mpsc::unbounded_channel();
    let announcements = lot.views.announcements();
    let listening = tokio::spawn(async move {
        loop {
            announcements.hear(|news| drop(tell.send(news)), || {}).await;
        }
    });
    // Every node is tried in turn, and the one that is away tells nothing.
    assert_eq!(heard.recv().await, Some(Heard::Beginning));
    let post = Post::drafted(1);
    let partition = lot.views.partition_of(post.id);
    eventually("all partitions move", async || lot.go_on().await == [true; COUNT as usize]).await;
    // Whoever listens may have begun anew meanwhile, and missed one.
    eventually("a change is heard", async || {
        let at = lot.at[usize::from(partition.0)];
        let flags = vec![(post.id, Flag::Quarantined(Position(at + 1)))];
        let change = Advance { flags, ..advance(partition, at, at + 1, vec![]) };
        let answer = lot.views.advance(&[change]).await.unwrap().remove(0);
        assert_eq!(answer.unwrap(), Guarded::Written);
        lot.at[usize::from(partition.0)] = at + 1;
        let visibility = Visibility::Unknown;
        let change = Heard::Change(Change { post_id: post.id, visibility, slugs: vec![] });
        let hearing = async { while heard.recv().await.as_ref() != Some(&change) {} };
        tokio::time::timeout(Duration::from_secs(1), hearing).await.is_ok()
    })
    .await;
    listening.abort();
}

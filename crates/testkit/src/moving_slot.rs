//! Moving a slot of a cluster from one master to another, as slowly as a test likes.

use redis::Cmd;

use crate::redis_cluster::{RedisCluster, tell};

/// A slot on its way from one master to another: it is neither here nor there.
#[derive(Debug)]
pub struct MovingSlot<'a> {
    cluster: &'a RedisCluster,
    slot: u16,
    from: usize,
    to: usize,
}

impl RedisCluster {
    /// Begins to move a slot: from now on new keys are made there, and those here wait to be moved.
    ///
    /// # Panics
    ///
    /// If the masters refuse.
    pub async fn begin_move(&self, slot: u16, to: usize) -> MovingSlot<'_> {
        let moving = MovingSlot { cluster: self, slot, from: self.first_owner(slot), to };
        let ids = [self.id(moving.from).await, self.id(to).await];
        let here = set_slot(slot).arg("MIGRATING").arg(&ids[1]).to_owned();
        let there = set_slot(slot).arg("IMPORTING").arg(&ids[0]).to_owned();
        // In this order, or a client that is sent there would be sent back.
        for (number, order) in [(to, there), (moving.from, here)] {
            let () = tell(&self.masters[number], &order).await.expect("a master refuses");
        }
        moving
    }
}

impl MovingSlot<'_> {
    /// Moves at most this many of its keys, and says how many there were.
    ///
    /// # Panics
    ///
    /// If the masters refuse.
    pub async fn move_keys(&self, count: usize) -> usize {
        let from = &self.cluster.masters[self.from];
        let list = redis::cmd("CLUSTER").arg("GETKEYSINSLOT").arg(self.slot).arg(count).to_owned();
        let keys: Vec<String> = tell(from, &list).await.expect("no keys");
        for key in &keys {
            self.move_key(key).await;
        }
        keys.len()
    }

    /// Moves this key.
    ///
    /// # Panics
    ///
    /// If the masters refuse.
    pub async fn move_key(&self, key: &str) {
        let (from, to) = (&self.cluster.masters[self.from], &self.cluster.masters[self.to]);
        let order = redis::cmd("MIGRATE")
            .arg("127.0.0.1")
            .arg(to.port())
            .arg(key)
            .arg(0)
            .arg(5000)
            .to_owned();
        let () = tell(from, &order).await.expect("a key does not move");
    }

    /// Moves what is left, and tells all masters who has the slot now.
    ///
    /// # Panics
    ///
    /// If the masters refuse.
    pub async fn finish(self) {
        while self.move_keys(100).await > 0 {}
        let id = self.cluster.id(self.to).await;
        let order = set_slot(self.slot).arg("NODE").arg(&id).to_owned();
        let others = (0..self.cluster.masters.len()).filter(|number| *number != self.to);
        for number in [self.to].into_iter().chain(others) {
            let () = tell(&self.cluster.masters[number], &order).await.expect("a master refuses");
        }
    }
}

fn set_slot(slot: u16) -> Cmd {
    redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).to_owned()
}

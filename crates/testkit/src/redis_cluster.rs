//! A Redis Cluster of one test's own: its nodes may be killed, replaced and rearranged.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Value};

use crate::{Place, Redis, RedisOptions, eventually_within, ports};

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;
/// How long a node may be silent before the others give it up, in milliseconds. On a busy machine one that is well may be
/// silent for a while, behind an fsync; for those who wait for a replica, Redis' own 15 s are too long.
const NODE_TIMEOUT: &str = "15000";
const REPLACED_AFTER: &str = "5000";
/// Longer than any rearrangement takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A running cluster. Its masters have numbers from zero, in the order of their slots. Dropping it kills it.
#[derive(Debug)]
pub struct RedisCluster {
    pub(crate) masters: Vec<Redis>,
    /// Of each master, if there are any.
    replicas: Vec<Redis>,
}

impl RedisCluster {
    /// Starts this many masters, which share the slots equally, each with a replica or without.
    pub async fn start(masters: u16, with_replicas: bool) -> Result<Self> {
        let mut cluster = Self { masters: vec![], replicas: vec![] };
        for _ in 0..masters {
            cluster.masters.push(start_node(with_replicas).await?);
        }
        for _ in 0..if with_replicas { masters } else { 0 } {
            cluster.replicas.push(start_node(with_replicas).await?);
        }
        cluster.join().await?;
        Ok(cluster)
    }

    /// Where services connect. It names only one node: the others are found by it.
    pub fn url(&self) -> String {
        format!("redis+cluster://{}/?protocol=resp3", self.masters[0].address())
    }

    /// All nodes, for clients that must find the cluster while some are down.
    pub fn url_of_all(&self) -> String {
        let nodes: Vec<_> = self.nodes().map(Redis::address).collect();
        format!("redis+cluster://{}/?protocol=resp3", nodes.join(","))
    }

    /// The master with this number. Once it was replaced, it is not one any more.
    pub fn master(&mut self, number: usize) -> &mut Redis {
        &mut self.masters[number]
    }

    /// The replica of the master with this number.
    pub fn replica(&self, number: usize) -> &Redis {
        &self.replicas[number]
    }

    /// # Panics
    ///
    /// If no node answers.
    pub async fn slot_of(&self, key: &str) -> u16 {
        for node in self.nodes() {
            if let Ok(slot) = tell(node, redis::cmd("CLUSTER").arg("KEYSLOT").arg(key)).await {
                return slot;
            }
        }
        panic!("no node of the cluster answers");
    }

    /// Which of the masters had a slot in the beginning.
    pub fn first_owner(&self, slot: u16) -> usize {
        let count = u16::try_from(self.masters.len()).unwrap_or(1);
        (0..count).position(|number| part(number, count).contains(&slot)).unwrap_or(0)
    }

    /// From now on the replica of a master hears no more of what is written; it has all from before. Nor can anybody
    /// connect to the master: those who are connected stay so.
    ///
    /// # Panics
    ///
    /// If the master refuses.
    pub async fn cut_off_replica(&self, number: usize) {
        self.has_replicated(number).await;
        let master = patient_connection(&self.masters[number].url()).await;
        let mut master = master.expect("the master does not answer");
        let mut orders = redis::pipe();
        orders.cmd("CONFIG").arg("SET").arg("requirepass").arg("nobody knows");
        orders.cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica");
        orders.exec_async(&mut master).await.expect("the master refuses");
    }

    /// Waits until the replica of a master has taken its place.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn has_taken_over(&self, number: usize) {
        let replica = &self.replicas[number];
        eventually_within(PATIENCE, "the replica takes over", async || {
            let role: Result<Vec<Value>, _> = tell(replica, &redis::cmd("ROLE")).await;
            let name = role.ok().and_then(|role| role.into_iter().next());
            name.is_some_and(|name| name == Value::BulkString(b"master".to_vec()))
        })
        .await;
    }

    /// Waits until the replica of a master has all that was written until now.
    async fn has_replicated(&self, number: usize) {
        let written = offset(&self.masters[number], "master_repl_offset:").await;
        let written = written.expect("the master does not answer");
        eventually_within(PATIENCE, "the replica has all", async || {
            let had = offset(&self.replicas[number], "slave_repl_offset:").await;
            had.is_some_and(|had| had >= written)
        })
        .await;
    }

    fn nodes(&self) -> impl Iterator<Item = &Redis> {
        self.masters.iter().chain(&self.replicas)
    }

    pub(crate) async fn id(&self, master: usize) -> String {
        id(&self.masters[master]).await.expect("a master does not know its own id")
    }

    async fn join(&self) -> Result<()> {
        let count = u16::try_from(self.masters.len())?;
        for (number, master) in (0..).zip(&self.masters) {
            let slots = part(number, count);
            let add = redis::cmd("CLUSTER")
                .arg("ADDSLOTSRANGE")
                .arg(*slots.start())
                .arg(*slots.end())
                .to_owned();
            let () = tell(master, &add).await?;
            let epoch = redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(number + 1).to_owned();
            let () = tell(master, &epoch).await?;
        }
        let mut ids = vec![];
        for node in self.nodes() {
            ids.push(id(node).await?);
        }
        let mut met = None;
        until(async || {
            // A handshake that takes too long is forgotten.
            if met.is_none_or(|met: Instant| met.elapsed() > Duration::from_secs(2)) {
                self.meet(&ids).await?;
                met = Some(Instant::now());
            }
            self.know_each_other(&ids).await
        })
        .await?;
        for (master, replica) in self.masters.iter().zip(&self.replicas) {
            let follow = redis::cmd("CLUSTER").arg("REPLICATE").arg(id(master).await?).to_owned();
            let () = tell(replica, &follow).await?;
        }
        until(async || self.all_say("cluster_state", "ok").await).await?;
        for replica in &self.replicas {
            until(async || {
                let info: String = tell(replica, redis::cmd("INFO").arg("replication")).await?;
                Ok(info.contains("master_link_status:up"))
            })
            .await?;
        }
        Ok(())
    }

    /// Introduces to the first node those that it does not know.
    async fn meet(&self, ids: &[String]) -> Result<()> {
        let known: String = tell(&self.masters[0], redis::cmd("CLUSTER").arg("NODES")).await?;
        for (node, id) in self.nodes().zip(ids) {
            if known.contains(id) {
                continue;
            }
            let bus: (String, u16) =
                tell(node, redis::cmd("CONFIG").arg("GET").arg("cluster-port")).await?;
            let meet = redis::cmd("CLUSTER")
                .arg("MEET")
                .arg("127.0.0.1")
                .arg(node.port())
                .arg(bus.1)
                .to_owned();
            let () = tell(&self.masters[0], &meet).await?;
        }
        Ok(())
    }

    async fn know_each_other(&self, ids: &[String]) -> Result<bool> {
        for node in self.nodes() {
            let known: String = tell(node, redis::cmd("CLUSTER").arg("NODES")).await?;
            if !ids.iter().all(|id| known.contains(id)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all nodes say this of their cluster.
    async fn all_say(&self, field: &str, value: &str) -> Result<bool> {
        let line = format!("{field}:{value}\r\n");
        for node in self.nodes() {
            let info: String = tell(node, redis::cmd("CLUSTER").arg("INFO")).await?;
            if !info.contains(&line) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A connection to where a key lies: to a single Redis, or to the node of a cluster that has it now.
pub async fn connection_to(url: &str, key: &str) -> Result<MultiplexedConnection> {
    let Some(nodes) = url.strip_prefix("redis+cluster://") else {
        return patient_connection(url).await;
    };
    let (nodes, options) = nodes.split_once('/').unwrap_or((nodes, ""));
    for node in nodes.split(',') {
        let Ok(mut asked) = patient_connection(&format!("redis://{node}/")).await else { continue };
        let slot = redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut asked).await?;
        let ranges: Vec<Vec<Value>> =
            redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut asked).await?;
        if let Some(port) = ranges.iter().find_map(|range| port_of(range, slot)) {
            return patient_connection(&format!("redis://127.0.0.1:{port}/{options}")).await;
        }
    }
    bail!("no node of the cluster knows who has `{key}`");
}

/// A connection to one server that waits for it: the library gives up after half a second, which on a busy machine says
/// nothing of a server.
pub async fn patient_connection(url: &str) -> Result<MultiplexedConnection> {
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_LIMIT))
        .set_response_timeout(Some(ANSWER_LIMIT));
    let client = redis::Client::open(url)?;
    Ok(client.get_multiplexed_async_connection_with_config(&patient).await?)
}

/// The port of the master of some slots, if this slot is among them.
fn port_of(range: &[Value], slot: i64) -> Option<i64> {
    let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range else {
        return None;
    };
    let [_host, Value::Int(port), ..] = &master[..] else { return None };
    (*first..=*last).contains(&slot).then_some(*port)
}

async fn start_node(with_replicas: bool) -> Result<Redis> {
    let place = Place::passing("redis-node")?;
    let bus = ports::free_port()?.to_string();
    let settings = [
        ("cluster-enabled", "yes"),
        ("cluster-port", &bus),
        ("cluster-node-timeout", if with_replicas { REPLACED_AFTER } else { NODE_TIMEOUT }),
        // Those who are there answer for what they have.
        ("cluster-require-full-coverage", "no"),
        // A replica is never too far behind: what it lacks is in the log.
        ("cluster-replica-validity-factor", "0"),
        ("repl-diskless-sync-delay", "0"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = RedisOptions {
        log: place.log(),
        place,
        port: 0,
        durable: false,
        settings: settings.into(),
    };
    Redis::start(options).await
}

/// The slots of a master in the beginning.
fn part(number: u16, count: u16) -> std::ops::RangeInclusive<u16> {
    let start = |number: u16| (u32::from(SLOTS) * u32::from(number) / u32::from(count)) as u16;
    start(number)..=start(number + 1) - 1
}

async fn id(node: &Redis) -> Result<String> {
    tell(node, redis::cmd("CLUSTER").arg("MYID")).await
}

/// How many bytes of what was written a node has, by this line of its account.
async fn offset(node: &Redis, line: &str) -> Option<u64> {
    let info: String = tell(node, redis::cmd("INFO").arg("replication")).await.ok()?;
    info.lines().find_map(|found| found.strip_prefix(line)?.parse().ok())
}

pub(crate) async fn tell<T: FromRedisValue>(node: &Redis, order: &Cmd) -> Result<T> {
    let mut connection = patient_connection(&node.url()).await?;
    Ok(order.query_async(&mut connection).await?)
}

async fn until(mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await? {
        if Instant::now() > deadline {
            bail!("the nodes of the cluster do not come together");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

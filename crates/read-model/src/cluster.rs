//! A cluster of Redis nodes: who has which slot, and what to do while that changes.
//!
//! The client library's own would send a pipeline that is redirected by `ASK` with one `ASKING` in front,
//! which covers its first command only; and while it looks for the owners of slots nobody is answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::ConnectionManagerConfig;
use redis::{
    Client, Cmd, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind,
    Value,
};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::node::Node;
use crate::slots::{Address, SlotRange, address_of, read_slots};

/// How often a pipeline follows its slot before we give up: it moves once in a while, not all the time.
const ROUNDS: usize = 4;

/// Keeps a connection to each node that it has heard of.
#[derive(Debug)]
pub(crate) struct Cluster {
    seeds: Vec<ConnectionInfo>,
    config: ConnectionManagerConfig,
    time_limit: Duration,
    known: RwLock<Known>,
    /// When the last look for the owners of slots that succeeded began.
    looked: Mutex<Option<Instant>>,
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Known {
    nodes: HashMap<Address, Arc<Node>>,
    owners: Vec<SlotRange>,
}

/// Where a node sends us that has not got a slot, or has not got a key of it any more.
enum Redirect {
    Moved(Address),
    Ask(Address),
}

impl Cluster {
    pub(crate) fn new(
        seeds: Vec<ConnectionInfo>,
        config: ConnectionManagerConfig,
        time_limit: Duration,
    ) -> Self {
        Self {
            seeds,
            // Whoever asks a node that is away is told at once, and may look for another.
            config: config.set_number_of_retries(0),
            time_limit,
            known: RwLock::default(),
            looked: Mutex::default(),
            turn: AtomicUsize::default(),
        }
    }

    /// Has a pipeline answered whose keys are all in one slot.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        slot: u16,
        pipe: &Pipeline,
    ) -> RedisResult<Vec<Value>> {
        let answered = timeout(self.time_limit, self.ask_owner(slot, pipe)).await;
        answered.unwrap_or_else(|_elapsed| {
            Err((ErrorKind::Io, "no answer in time", format!("from the owner of slot {slot}"))
                .into())
        })
    }

    /// A pipeline is always sent again as a whole, because what was read before an interruption and what is
    /// read after it do not belong together. Everything that we write may be written twice: the guard refuses
    /// an advance or a new epoch that it has seen, and tells where the watermark stands; a fill, a slug and a
    /// lifetime are the same the second time.
    async fn ask_owner(self: &Arc<Self>, slot: u16, pipe: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut node = self.owner(slot).await?;
        for _ in 0..ROUNDS {
            let mut answers = match node.ask(pipe).await {
                Ok(answers) => answers,
                // It may have been replaced.
                Err(error) => {
                    self.look().await?;
                    let owner = self.owner(slot).await?;
                    if Arc::ptr_eq(&owner, &node) {
                        return Err(error);
                    }
                    node = owner;
                    continue;
                }
            };
            let mut redirect = answers.iter().find_map(|answer| redirect(answer, &node));
            if let Some(Redirect::Ask(_)) = redirect {
                (answers, redirect) = self.ask_one_by_one(&node, pipe).await?;
            }
            let Some(Redirect::Moved(address)) = redirect else {
                if answers.iter().any(is_out_of_order) {
                    self.look_soon();
                }
                return Ok(answers);
            };
            self.look_soon();
            node = self.node(&address)?;
        }
        Err((ErrorKind::Io, "a slot moves from node to node", slot.to_string()).into())
    }

    /// While a slot moves, each of its keys is either here or there. So that nothing is read before what
    /// stands before it in the pipeline, each command is asked on its own: here, and if the key has gone,
    /// there. Stops at the first that neither has.
    async fn ask_one_by_one(
        &self,
        here: &Node,
        pipe: &Pipeline,
    ) -> RedisResult<(Vec<Value>, Option<Redirect>)> {
        let mut answers = Vec::with_capacity(pipe.len());
        for command in pipe.cmd_iter() {
            let mut answer = here.ask_one(command).await?;
            if let Some(Redirect::Ask(address)) = redirect(&answer, here) {
                answer = ask_anyway(&*self.node(&address)?, command).await?;
            }
            if let Some(moved) = redirect(&answer, here) {
                return Ok((answers, Some(moved)));
            }
            answers.push(answer);
        }
        Ok((answers, None))
    }

    /// A client of a node that answers, another one each time.
    pub(crate) fn next_node(&self) -> RedisResult<Client> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let nodes: Vec<_> = known.nodes.values().filter(|node| !node.is_silent()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let info = match nodes.get(turn % nodes.len().max(1)) {
            Some(node) => self.info(&node.address),
            None => self.seeds[turn % self.seeds.len()].clone(),
        };
        Client::open(info)
    }

    async fn owner(self: &Arc<Self>, slot: u16) -> RedisResult<Arc<Node>> {
        if let Some(node) = self.known_owner(slot) {
            return Ok(node);
        }
        self.look().await?;
        let nobody = (ErrorKind::Io, "no node has a slot", slot.to_string());
        self.known_owner(slot).ok_or_else(|| nobody.into())
    }

    fn known_owner(&self, slot: u16) -> Option<Arc<Node>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let range = known.owners.iter().find(|range| range.slots.contains(&slot))?;
        known.nodes.get(&range.master).cloned()
    }

    fn node(&self, address: &Address) -> RedisResult<Arc<Node>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        self.node_of(&mut known.nodes, address)
    }

    fn node_of(
        &self,
        nodes: &mut HashMap<Address, Arc<Node>>,
        address: &Address,
    ) -> RedisResult<Arc<Node>> {
        if let Some(node) = nodes.get(address) {
            return Ok(node.clone());
        }
        let node = Node::new(address.clone(), self.info(address), self.config.clone())?;
        nodes.insert(address.clone(), node.clone());
        Ok(node)
    }

    fn info(&self, address: &Address) -> ConnectionInfo {
        let seed = self.seeds[0].clone();
        let place = address.beside(seed.addr());
        seed.set_addr(place)
    }

    fn look_soon(self: &Arc<Self>) {
        let cluster = self.clone();
        tokio::spawn(async move { cluster.look().await });
    }

    /// Asks all nodes at once who has which slot, and believes the first that knows. Those who ask meanwhile
    /// wait for the one who does.
    async fn look(self: &Arc<Self>) -> RedisResult<()> {
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|looked| looked >= asked) {
            return Ok(());
        }
        let began = Instant::now();
        let mut questions = JoinSet::new();
        for node in self.all_nodes()? {
            questions.spawn(timeout(self.time_limit, async move {
                let answer = node.ask_one(redis::cmd("CLUSTER").arg("SLOTS")).await?;
                read_slots(answer, &node.address.host)
            }));
        }
        let mut why = RedisError::from((ErrorKind::Io, "no node of the cluster answers"));
        while let Some(answer) = questions.join_next().await {
            match answer {
                Ok(Ok(Ok(owners))) => {
                    self.believe(owners)?;
                    *looked = Some(began);
                    return Ok(());
                }
                Ok(Ok(Err(error))) => why = error,
                Ok(Err(_elapsed)) => {}
                Err(_panicked) => {}
            }
        }
        Err(why)
    }

    fn believe(&self, owners: Vec<SlotRange>) -> RedisResult<()> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        let mut nodes = HashMap::new();
        for range in &owners {
            for address in range.nodes() {
                if let Some(node) = known.nodes.remove(address) {
                    nodes.insert(address.clone(), node);
                }
                self.node_of(&mut nodes, address)?;
            }
        }
        *known = Known { nodes, owners };
        Ok(())
    }

    /// Those that we have heard of, and those that we were told of to begin with.
    fn all_nodes(&self) -> RedisResult<Vec<Arc<Node>>> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for seed in &self.seeds {
            if let Some(address) = address_of(seed.addr()) {
                self.node_of(&mut known.nodes, &address)?;
            }
        }
        Ok(known.nodes.values().cloned().collect())
    }
}

/// Asks a node for a key that it is about to get.
async fn ask_anyway(node: &Node, command: &Cmd) -> RedisResult<Value> {
    let mut pipe = redis::pipe();
    pipe.cmd("ASKING").add_command(command.clone());
    let answer = node.ask(&pipe).await?.pop();
    answer.ok_or_else(|| (ErrorKind::Parse, "an answer is missing").into())
}

fn redirect(answer: &Value, node: &Node) -> Option<Redirect> {
    let Value::ServerError(error) = answer else { return None };
    let kind = error.kind()?;
    let asks = kind == ServerErrorKind::Ask;
    if !asks && kind != ServerErrorKind::Moved {
        return None;
    }
    let error = RedisError::from(error.clone());
    let (address, _slot) = error.redirect_node()?;
    let address = Address::read(address, &node.address.host)?;
    Some(if asks { Redirect::Ask(address) } else { Redirect::Moved(address) })
}

/// Whether a node says that it is not what we take it for, or that its cluster is not whole.
fn is_out_of_order(answer: &Value) -> bool {
    use ServerErrorKind::{ClusterDown, MasterDown, ReadOnly};
    let Value::ServerError(error) = answer else { return false };
    error.kind().is_some_and(|kind| [ClusterDown, MasterDown, ReadOnly].contains(&kind))
}

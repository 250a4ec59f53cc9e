//! The way to Redis, a single one or a cluster: questions are gathered, sent together, and answered in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::vec;

use futures::future::join_all;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline, RedisError, RedisResult,
    Script, ScriptInvocation, Value,
};

use crate::ViewsError;
use crate::cluster::Cluster;
use crate::slots::slot_of;

/// How long sent data may stay without acknowledgement before the connection is made anew.
const STALL_LIMIT: Duration = Duration::from_secs(5);
/// What the address of a cluster begins with.
const CLUSTER: &str = "redis+cluster://";

/// Comes back by itself when it was lost.
#[derive(Debug, Clone)]
pub(crate) enum Connection {
    One { client: Client, manager: ConnectionManager },
    Cluster(Arc<Cluster>),
}

impl Connection {
    /// Connects when it is first needed.
    pub(crate) fn new(url: &str, time_limit: Duration) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(time_limit))
            .set_connection_timeout(Some(time_limit))
            .set_max_delay(Duration::from_secs(1));
        if let Some(rest) = url.strip_prefix(CLUSTER) {
            let seeds: RedisResult<_> = seeds(rest).iter().map(|url| info(url)).collect();
            return Ok(Self::Cluster(Arc::new(Cluster::new(seeds?, config, time_limit))));
        }
        let client = Client::open(info(url)?)?;
        let manager = ConnectionManager::new_lazy_with_config(client.clone(), config)?;
        Ok(Self::One { client, manager })
    }

    /// Begins to gather questions.
    pub(crate) fn exchange(&self) -> Exchange<'_> {
        Exchange { connection: self, parts: vec![], of_slot: HashMap::new(), order: vec![] }
    }

    /// Who hears what is published. In a cluster that is any node, and the next one each time.
    pub(crate) fn listener(&self) -> RedisResult<Client> {
        match self {
            Self::One { client, .. } => Ok(client.clone()),
            Self::Cluster(cluster) => cluster.next_node(),
        }
    }
}

/// Questions that are sent together: to a single Redis as one pipeline, to a cluster as one for each slot.
pub(crate) struct Exchange<'a> {
    connection: &'a Connection,
    parts: Vec<Part>,
    of_slot: HashMap<u16, usize>,
    order: Vec<Question>,
}

struct Part {
    slot: u16,
    pipe: Pipeline,
    has_script: bool,
}

struct Question {
    part: usize,
    loads_script: bool,
}

impl Exchange<'_> {
    /// Where the commands of the next question go, one at least. All that it is about is in the slot of `key`. They are
    /// carried out in this order, but not in one step.
    pub(crate) fn question(&mut self, key: &str) -> &mut Pipeline {
        let part = self.part(key);
        self.order.push(Question { part, loads_script: false });
        &mut self.parts[part].pipe
    }

    /// The next question is a call of a script, the same for all calls, about the slot of `key`.
    pub(crate) fn call(&mut self, key: &str, script: &Script, call: &ScriptInvocation<'_>) {
        let number = self.part(key);
        let part = &mut self.parts[number];
        // A restart or a failover empties Redis' memory of scripts, and a pipeline cannot ask back.
        let loads_script = !part.has_script;
        if loads_script {
            part.pipe.load_script(script);
            part.has_script = true;
        }
        part.pipe.invoke_script(call);
        self.order.push(Question { part: number, loads_script });
    }

    fn part(&mut self, key: &str) -> usize {
        let parts = &mut self.parts;
        let mut new_part = |slot| {
            parts.push(Part { slot, pipe: redis::pipe(), has_script: false });
            parts.len() - 1
        };
        match self.connection {
            Connection::One { .. } if !self.order.is_empty() => 0,
            Connection::One { .. } => new_part(0),
            Connection::Cluster(_) => {
                let slot = slot_of(key);
                *self.of_slot.entry(slot).or_insert_with(|| new_part(slot))
            }
        }
    }

    /// Sends all questions. Those of different parts are answered or fail independently.
    pub(crate) async fn send(self) -> Answers {
        let parts = match self.connection {
            Connection::One { manager, .. } => {
                let mut answers = vec![];
                for Part { pipe, .. } in &self.parts {
                    answers.push(manager.clone().send_packed_commands(pipe, 0, pipe.len()).await);
                }
                answers
            }
            Connection::Cluster(cluster) => {
                join_all(self.parts.iter().map(|part| cluster.ask(part.slot, &part.pipe))).await
            }
        };
        let parts = parts.into_iter().map(|answers| answers.map(Vec::into_iter)).collect();
        Answers { parts, order: self.order.into_iter() }
    }
}

/// The answers to questions, in their order.
pub(crate) struct Answers {
    parts: Vec<RedisResult<vec::IntoIter<Value>>>,
    order: vec::IntoIter<Question>,
}

impl Answers {
    /// The answer to the next question, which was of N commands.
    pub(crate) fn next<const N: usize>(&mut self) -> Result<[Value; N], ViewsError> {
        let missing = || RedisError::from((ErrorKind::Parse, "an answer is missing"));
        let Question { part, loads_script } = self.order.next().ok_or_else(missing)?;
        let answers = self.parts.get_mut(part).ok_or_else(missing)?;
        let answers = answers.as_mut().map_err(|error| error.clone())?;
        let mut refused = None;
        let mut take = || match answers.next() {
            Some(Value::ServerError(error)) => {
                refused.get_or_insert(RedisError::from(error));
                Value::Nil
            }
            Some(answer) => answer,
            None => {
                refused.get_or_insert_with(missing);
                Value::Nil
            }
        };
        if loads_script {
            take();
        }
        let next = std::array::from_fn(|_| take());
        refused.map_or(Ok(next), |error| Err(error.into()))
    }

    /// The answers to all questions, each of which was one command.
    pub(crate) fn singles(mut self) -> Result<Vec<Value>, ViewsError> {
        let left = self.order.len();
        (0..left).map(|_| self.next().map(|[answer]| answer)).collect()
    }
}

/// The addresses in `[user:password@]host:port[,host:port…][/?…]`, each as that of a single Redis.
fn seeds(rest: &str) -> Vec<String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (servers, options) = rest.split_at(end);
    let (credentials, hosts) = servers.split_at(servers.rfind('@').map_or(0, |at| at + 1));
    hosts.split(',').map(|host| format!("redis://{credentials}{host}{options}")).collect()
}

fn info(url: &str) -> RedisResult<ConnectionInfo> {
    // A connection that stalls without being reset would otherwise stay in use until the kernel gives
    // up, which takes a quarter of an hour.
    let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(STALL_LIMIT);
    Ok(url.into_connection_info()?.set_tcp_settings(tcp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_cluster_names_some_of_its_nodes() {
        assert_eq!(seeds("a:1"), ["redis://a:1"]);
        assert_eq!(
            seeds("me:secret@a:1,b:2/?protocol=resp3"),
            ["redis://me:secret@a:1/?protocol=resp3", "redis://me:secret@b:2/?protocol=resp3"]
        );
        let limit = Duration::from_secs(1);
        for bad in ["redis+cluster://", "redis+cluster://a:x", "kafka://a:1"] {
            assert!(Connection::new(bad, limit).is_err(), "{bad} was accepted");
        }
    }
}

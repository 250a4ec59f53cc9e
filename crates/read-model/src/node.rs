//! One node of a cluster.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, ConnectionInfo, ErrorKind, Pipeline, RedisResult, Value};
use tokio::time::{sleep, timeout};

use crate::slots::Address;

/// How often a node is asked whether it is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How long it has to say so.
const SILENCE: Duration = Duration::from_secs(1);
/// So often in a row must it fail to: a hiccup, of it or of this process, must not send all readers elsewhere.
const MISSES: u32 = 2;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) address: Address,
    connection: ConnectionManager,
    /// Nobody is kept waiting for a node that hangs: the others answer meanwhile.
    silent: AtomicBool,
}

impl Node {
    /// Connects in the background.
    pub(crate) fn new(
        address: Address,
        info: ConnectionInfo,
        config: ConnectionManagerConfig,
    ) -> RedisResult<Arc<Self>> {
        let connection = ConnectionManager::new_lazy_with_config(Client::open(info)?, config)?;
        let node = Arc::new(Self { address, connection, silent: AtomicBool::new(false) });
        tokio::spawn(listen(Arc::downgrade(&node)));
        Ok(node)
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(crate) async fn ask(&self, pipe: &Pipeline) -> RedisResult<Vec<Value>> {
        self.require_sound()?;
        self.connection.clone().send_packed_commands(pipe, 0, pipe.len()).await
    }

    pub(crate) async fn ask_one(&self, command: &Cmd) -> RedisResult<Value> {
        self.require_sound()?;
        self.connection.clone().send_packed_command(command).await
    }

    fn require_sound(&self) -> RedisResult<()> {
        if self.is_silent() {
            let Address { host, port } = &self.address;
            return Err((ErrorKind::Io, "a node is silent", format!("{host}:{port}")).into());
        }
        Ok(())
    }
}

/// Keeps an eye on a node for as long as somebody has it.
async fn listen(node: Weak<Node>) {
    let mut missed = 0;
    while let Some(node) = node.upgrade() {
        let ping = redis::cmd("PING");
        let mut connection = node.connection.clone();
        let answer = timeout(SILENCE, connection.send_packed_command(&ping)).await;
        missed = if matches!(answer, Ok(Ok(_))) { 0 } else { missed + 1 };
        node.silent.store(missed >= MISSES, Ordering::Relaxed);
        drop(node);
        sleep(HEARTBEAT).await;
    }
}

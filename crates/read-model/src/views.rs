//! The views in Redis: where they are, and which generation of them is meant.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use domain::{Partition, Partitions, PostId};
use redis::{RedisError, RedisResult, Script, Value};

use crate::announcements::Announcements;
use crate::connection::Connection;
use crate::folding::Fold;
use crate::high_water::HighWater;
use crate::keys::KeySpace;
use crate::lengthened::Lengthened;
use crate::post_page::fold_page;

/// How long a row, or what a slug names, stays that nobody reads. Both are in the log.
pub(crate) const KEPT_SECONDS: i64 = 7 * 24 * 3600;

/// The views of one store. Clones share one connection to Redis, or one to each node of a cluster; they come
/// back by themselves.
#[derive(Debug, Clone)]
pub struct Views {
    pub(crate) connection: Connection,
    pub(crate) keys: KeySpace,
    /// The generation of these views; clones share it.
    generation: Arc<AtomicU32>,
    pub(crate) partitions: Partitions,
    pub(crate) guard: Arc<Script>,
    pub(crate) new_epoch: Arc<Script>,
    pub(crate) lengthened: Arc<Lengthened>,
    fold: Fold,
    pub(crate) high_water: Arc<HighWater>,
}

#[derive(Debug, thiserror::Error)]
pub enum ViewsError {
    #[error("Redis did not answer as asked")]
    Redis(#[from] RedisError),
    #[error("a value in Redis cannot be read: {0}")]
    Malformed(&'static str),
    #[error("a row cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl ViewsError {
    /// Whether nobody is there at all.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Redis(error) if error.is_connection_refusal())
    }
}

impl Views {
    /// Prepares to talk to Redis at `url`; the connection is made when it is first needed. A cluster is named
    /// by some of its nodes: `redis+cluster://host:port,host:port`.
    pub fn new(
        url: &str,
        keys: KeySpace,
        partitions: Partitions,
        time_limit: Duration,
    ) -> Result<Self, ViewsError> {
        Ok(Self {
            connection: Connection::new(url, time_limit)?,
            generation: Arc::new(AtomicU32::new(keys.generation())),
            keys,
            partitions,
            guard: Arc::new(Script::new(include_str!("guard.lua"))),
            new_epoch: Arc::new(Script::new(include_str!("new_epoch.lua"))),
            lengthened: Arc::new(Lengthened::new()),
            fold: fold_page,
            high_water: Arc::default(),
        })
    }

    /// Returns these views with another fold: the seam for tests of folds that fail.
    #[must_use]
    pub fn folding_by(self, fold: Fold) -> Self {
        Self { fold, ..self }
    }

    /// The fold that makes their documents.
    pub fn fold(&self) -> Fold {
        self.fold
    }

    /// A server that tells what is announced. Of a cluster any node does, and this is another one each time.
    pub fn listener(&self) -> RedisResult<redis::Client> {
        self.connection.listener()
    }

    /// Whether each partition may be on a server of its own, which answers or is away by itself.
    pub fn are_in_a_cluster(&self) -> bool {
        matches!(self.connection, Connection::Cluster(_))
    }

    /// What is announced of changes to them.
    pub fn announcements(&self) -> Announcements {
        Announcements::new(self.clone(), self.keys.announcements())
    }

    /// These and all their clones are another generation from now on. Each question to Redis that is being asked stays
    /// with the one it began with; whoever asks several holds on to one by [`Views::of_generation`].
    pub fn switch_to(&self, generation: u32) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// The same store's views in one generation, which no switch changes.
    #[must_use]
    pub fn of_generation(&self, generation: u32) -> Self {
        Self { generation: Arc::new(AtomicU32::new(generation)), ..self.clone() }
    }

    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The keys of the present generation. Whoever needs several takes them from one call.
    pub(crate) fn keys(&self) -> KeySpace {
        self.keys.of_generation(self.generation())
    }

    pub fn partition_of(&self, id: PostId) -> Partition {
        self.partitions.of(&id.to_string())
    }
}

pub(crate) fn values<T: redis::FromRedisValue>(
    answer: Value,
) -> Result<Vec<Option<T>>, ViewsError> {
    read(answer)
}

pub(crate) fn read<T: redis::FromRedisValue>(answer: Value) -> Result<T, ViewsError> {
    Ok(redis::from_redis_value(answer).map_err(RedisError::from)?)
}

//! A blog to project: a log, a topic and views of its own, and a hand in place of the command service and
//! its relay.

mod checker;
mod log;
mod projector;
mod quarantine;
mod tools;
mod topic;

use std::time::Duration;

use domain::{Partition, PostId};
use event_log::EventLog;
use rdkafka::producer::FutureProducer;
use read_model::{KeySpace, Views, Watermark};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use sqlx::PgPool;
use testkit::{
    Place, Proxy, TestDatabase, create_topic, eventually, eventually_some, patient_connection,
    shared, unique_name,
};
use uuid::Uuid;

pub(crate) use projector::Projector;
pub(crate) use tools::{LIMIT, SLOWLY};

pub(crate) const PARTITIONS: u16 = 4;

pub(crate) struct Blog {
    pub(crate) pool: PgPool,
    pub(crate) log: EventLog,
    pub(crate) views: Views,
    database_url: String,
    redis_url: String,
    kafka: String,
    prefix: String,
    pub(crate) topic: String,
    pub(crate) undecodable: String,
    group: String,
    producer: FutureProducer,
    /// For the logs of tools.
    place: Place,
}

impl Blog {
    /// On the servers that all tests share.
    pub(crate) async fn new() -> Self {
        Self::with_redis(&shared().redis_url).await
    }

    pub(crate) async fn with_redis(redis_url: &str) -> Self {
        Self::on(redis_url, &shared().kafka).await
    }

    pub(crate) async fn with_kafka(brokers: &str) -> Self {
        Self::on(&shared().redis_url, brokers).await
    }

    async fn on(redis_url: &str, kafka: &str) -> Self {
        // One template for each run: it must not outlive the migrations it was made by.
        let template = format!("projector_{}", std::process::id());
        let database = TestDatabase::from_template(&template, create_store).await;
        Self::of(database.url(), redis_url, kafka).await
    }

    /// In an empty database of a Postgres of the test's own.
    pub(crate) async fn on_postgres(url: &str) -> Self {
        create_store(url.to_owned()).await.unwrap();
        Self::of(url, &shared().redis_url, &shared().kafka).await
    }

    async fn of(database_url: &str, redis_url: &str, kafka: &str) -> Self {
        let pool = PgPool::connect(database_url).await.unwrap();
        let partitions = event_log::open(&pool).await.unwrap().partitions;
        let (prefix, topic) = (unique_name("projector"), unique_name("events"));
        create_topic(kafka, &topic, PARTITIONS.into()).await;
        let keys = KeySpace::new(&prefix).unwrap();
        Self {
            log: EventLog::new(pool.clone(), partitions),
            views: Views::new(redis_url, keys, partitions, Duration::from_secs(5)).unwrap(),
            pool,
            database_url: database_url.to_owned(),
            redis_url: redis_url.to_owned(),
            kafka: kafka.to_owned(),
            prefix,
            group: unique_name("projectors"),
            producer: topic::producer(kafka),
            undecodable: format!("{topic}.undecodable"),
            topic,
            place: Place::passing("projector").unwrap(),
        }
    }

    /// From now on projectors reach Postgres through a proxy; the test itself does not.
    pub(crate) fn puts_a_proxy_before_postgres(&mut self) -> Proxy {
        let name = self.database_url.rsplit('/').next().unwrap();
        let (proxy, url) = shared().postgres_proxy(name);
        self.database_url = url;
        proxy
    }

    /// From now on projectors reach Postgres at another address; the test itself does not.
    pub(crate) fn reaches_postgres_at(&mut self, url: String) {
        self.database_url = url;
    }

    /// From now on the test reaches the same store on another server.
    pub(crate) async fn moves_to(&mut self, url: &str) {
        self.pool = PgPool::connect(url).await.unwrap();
        self.log = EventLog::new(self.pool.clone(), self.log.partitions());
    }

    /// The consumer group of its projectors.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    pub(crate) fn partitions() -> impl Iterator<Item = Partition> {
        (0..PARTITIONS).map(Partition)
    }

    /// The id of a new post in a partition.
    pub(crate) fn id_in(&self, partition: Partition) -> PostId {
        let mut ids = std::iter::repeat_with(|| PostId(Uuid::now_v7()));
        ids.find(|id| self.views.partition_of(*id) == partition).unwrap()
    }

    pub(crate) async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        patient_connection(&self.redis_url).await
    }

    pub(crate) async fn watermark(&self, partition: Partition) -> Watermark {
        let watermarks = self.watermarks().await;
        watermarks[usize::from(partition.0)].clone().expect("there is no watermark")
    }

    /// The epoch of each partition: as long as it stays, nothing was begun anew.
    pub(crate) async fn epochs(&self) -> Vec<String> {
        let watermarks = self.watermarks().await;
        watermarks.into_iter().map(|mark| mark.expect("there is no watermark").epoch).collect()
    }

    async fn watermarks(&self) -> Vec<Option<Watermark>> {
        eventually_some("the views answer", async || self.views.watermarks().await.ok()).await
    }

    /// Takes away all keys of this pattern but one, and one field of that, at once: nothing is written in between.
    pub(crate) async fn forget(&self, pattern: &str, but: Option<(&str, &str)>) {
        const FORGET: &str = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
                                  if key ~= ARGV[2] then redis.call('DEL', key) end
                              end
                              if ARGV[2] then redis.call('HDEL', ARGV[2], ARGV[3]) end";
        let script = ::redis::Script::new(FORGET);
        let mut forgetting = script.arg(pattern);
        if let Some((key, field)) = but {
            forgetting.arg(key).arg(field);
        }
        forgetting.invoke_async::<()>(&mut self.redis().await.unwrap()).await.unwrap();
    }

    /// Writes other things into a watermark than the guard would.
    pub(crate) async fn tamper(&self, partition: Partition, fields: &[(&str, String)]) {
        let key = self.key(partition, "watermark");
        self.redis().await.unwrap().hset_multiple::<_, _, _, ()>(key, fields).await.unwrap();
    }

    /// Takes a row away, as Redis does when it runs short of memory.
    pub(crate) async fn evict(&self, id: PostId) {
        let key = self.key(self.views.partition_of(id), &format!("post:{id}"));
        let removed: u32 = self.redis().await.unwrap().del(key).await.unwrap();
        assert_eq!(removed, 1, "there was no such row");
    }

    /// A key of a partition, by what follows its hash tag.
    pub(crate) fn key(&self, partition: Partition, rest: &str) -> String {
        format!("{{{}:g{}:{partition}}}:{rest}", self.prefix, self.views.generation())
    }

    /// Waits until every partition has its views, so that what is recorded from now on has to be projected.
    pub(crate) async fn has_begun(&self) {
        eventually("every partition has a watermark", async || {
            self.views.watermarks().await.is_ok_and(|marks| marks.iter().all(Option::is_some))
        })
        .await;
    }
}

async fn create_store(url: String) -> Result<(), event_log::StoreError> {
    let pool = PgPool::connect(&url).await?;
    event_log::migrate(&pool).await?;
    event_log::create(&pool, domain::Partitions::new(PARTITIONS).unwrap()).await?;
    pool.close().await;
    Ok(())
}

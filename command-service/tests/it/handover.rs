//! Whoever carries the log may be killed, or stand still and wake up: another takes over, and what Kafka has in
//! the end has no hole and keeps its order.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;
use testkit::{
    Place, Process, Signal, TestDatabase, eventually, free_port, service_process, shared,
    unique_name,
};
use tokio_util::sync::CancellationToken;

use crate::relay::{in_order, read_messages};
use crate::support::{SECRET, new_database, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_relay_is_replaced() {
    let store = Store::new().await;
    let (mut first, second) = store.start_two().await;
    second.write(20).await;
    first.process.kill().unwrap();
    second.write(20).await;
    eventually("the second does", async || store.holder().await == second.address).await;
    store.has_carried_all().await;
    assert_eq!(in_order(store.all_messages().await), (1..=40).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_wakes_up_after_its_lease_does_no_harm() {
    let store = Store::new().await;
    let (sleeper, other) = store.start_two().await;
    let over = CancellationToken::new();
    let watching = tokio::spawn(never_goes_back(store.pool.clone(), over.clone()));

    for _ in 0..3 {
        // So that it has something in hand when it falls asleep, and when it wakes up.
        let ((), ()) = tokio::join!(other.write(100), async {
            eventually("it is at it", async || store.cursor().await > 0).await;
            sleeper.signal(Signal::Stop);
        });
        eventually("the other takes over", async || store.holder().await == other.address).await;
        let ((), ()) = tokio::join!(other.write(100), async {
            sleeper.signal(Signal::Continue);
            eventually("it knows what has happened", async || !sleeper.is_active().await).await;
        });
        store.has_carried_all().await;
        store.hand_over(&other, &sleeper).await;
    }

    over.cancel();
    watching.await.unwrap();
    assert_eq!(in_order(store.all_messages().await), (1..=600).collect::<Vec<_>>());
}

/// A store, and the topic that it is carried to.
struct Store {
    database: TestDatabase,
    pool: PgPool,
    topic: String,
    logs: Place,
}

/// A command service as a process.
struct Running {
    process: Process,
    address: String,
    ops: String,
    client: reqwest::Client,
}

impl Store {
    async fn new() -> Self {
        let database = new_database().await;
        let pool = PgPool::connect(database.url()).await.unwrap();
        let logs = Place::passing("handover").unwrap();
        Self { database, pool, topic: unique_name("events"), logs }
    }

    /// Two processes, the first of which carries the log.
    async fn start_two(&self) -> (Running, Running) {
        let first = self.start().await;
        eventually("it carries the log", async || self.holder().await == first.address).await;
        (first, self.start().await)
    }

    async fn start(&self) -> Running {
        let address = || format!("127.0.0.1:{}", free_port().unwrap());
        let (address, ops) = (address(), address());
        let log = self.logs.path().join(format!("{}.log", address.replace(':', "-")));
        let settings = [
            ("INKSTREAM_DATABASE_URL", self.database.url()),
            ("INKSTREAM_REDIS_URL", &shared().redis_url),
            ("INKSTREAM_KAFKA_BROKERS", &shared().kafka),
            ("INKSTREAM_KAFKA_TOPIC", &self.topic),
            ("INKSTREAM_HTTP_ADDRESS", &address),
            ("INKSTREAM_OPS_ADDRESS", &ops),
            ("INKSTREAM_JWT_SECRET", SECRET),
            ("INKSTREAM_LEASE_SECONDS", "1"),
            // However slow the machine, nobody is to be turned away.
            ("INKSTREAM_QUEUE_MS", "60000"),
            ("INKSTREAM_REQUEST_SECONDS", "60"),
        ];
        let process = service_process("command-service", &log, &settings).unwrap();
        let client = reqwest::Client::new();
        let mut running = Running { process, address, ops, client };
        eventually("a service is ready", async || {
            running.process.require_running().unwrap();
            running.ops("/health/ready").await.is_some()
        })
        .await;
        running
    }

    async fn holder(&self) -> String {
        let holder: Option<String> =
            sqlx::query_scalar("SELECT holder FROM relay").fetch_one(&self.pool).await.unwrap();
        // The address, and the id of the process behind it.
        holder.unwrap_or_default().split(',').next().unwrap_or_default().to_owned()
    }

    async fn cursor(&self) -> i64 {
        sqlx::query_scalar("SELECT cursor FROM relay").fetch_one(&self.pool).await.unwrap()
    }

    async fn has_carried_all(&self) {
        eventually("Kafka has the whole log", async || {
            let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
                .fetch_one(&self.pool)
                .await
                .unwrap();
            waiting == 0
        })
        .await;
    }

    /// Has the lease go back to one who lost it, by putting the other to sleep in its turn.
    async fn hand_over(&self, from: &Running, to: &Running) {
        from.signal(Signal::Stop);
        eventually("it has gone back", async || self.holder().await == to.address).await;
        from.signal(Signal::Continue);
        eventually("the other knows", async || !from.is_active().await).await;
    }

    async fn all_messages(&self) -> Vec<domain::Message> {
        let topic = self.topic.clone();
        let count = tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer =
                ClientConfig::new().set("bootstrap.servers", shared().kafka).create().unwrap();
            let ends = (0..4).map(|partition| {
                consumer.fetch_watermarks(&topic, partition, Duration::from_secs(10)).unwrap().1
            });
            ends.sum::<i64>()
        })
        .await
        .unwrap();
        read_messages(&self.topic, |read| read.len() < usize::try_from(count).unwrap()).await
    }
}

impl Running {
    /// Makes so many drafts, several at once, each of which is one event.
    async fn write(&self, count: usize) {
        let made = (0..count).map(|number| async move {
            let body =
                json!({ "title": format!("Number {number}"), "content": "", "status": "draft" });
            let url = format!("http://{}/posts", self.address);
            let request = self.client.request(Method::POST, url).bearer_auth(token("anne"));
            assert_eq!(request.json(&body).send().await.unwrap().status(), 201);
        });
        futures::future::join_all(made).await;
    }

    async fn is_active(&self) -> bool {
        self.ops("/metrics").await.is_none_or(|numbers| numbers.contains("\nrelay_active 1\n"))
    }

    async fn ops(&self, path: &str) -> Option<String> {
        // One that stands still does not answer.
        let request = self.client.get(format!("http://{}{path}", self.ops));
        let answer = request.timeout(Duration::from_secs(5)).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }

    fn signal(&self, signal: Signal) {
        signal.send_to(&[self.process.id()]).unwrap();
    }
}

/// Looks at the cursor all the time.
async fn never_goes_back(pool: PgPool, over: CancellationToken) {
    let mut before = (0, 0);
    while !over.is_cancelled() {
        let now: (i64, i64) =
            sqlx::query_as("SELECT token, cursor FROM relay").fetch_one(&pool).await.unwrap();
        assert!(now.0 >= before.0 && now.1 >= before.1, "{now:?} after {before:?}");
        before = now;
    }
}

//! A projector in this process, told to use the blog's log, topic and views.

use std::net::SocketAddr;

use clap::Parser as _;
use projector::{App, Config};
use serde_json::Value;
use testkit::{Place, Process, eventually_some, service_process};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Blog;

/// Runs until it is stopped or dropped.
pub(crate) struct Projector {
    ops_address: SocketAddr,
    running: JoinHandle<anyhow::Result<()>>,
    stop: DropGuard,
}

impl Blog {
    /// One that hears of events through Kafka only: it never loses patience with it.
    pub(crate) async fn project(&self) -> Projector {
        self.project_with("--patience-ms=600000").await
    }

    /// One that soon looks into the log itself.
    pub(crate) async fn project_impatiently(&self) -> Projector {
        self.project_with("--patience-ms=300").await
    }

    pub(crate) async fn project_with(&self, setting: &str) -> Projector {
        Projector::run(App::build(self.config(setting)).await.unwrap())
    }

    /// One whose documents another fold makes.
    pub(crate) async fn project_folding_by(&self, fold: read_model::Fold) -> Projector {
        let config = self.config("--patience-ms=600000");
        Projector::run(App::build_folding_by(fold, config).await.unwrap())
    }

    fn config(&self, setting: &str) -> Config {
        Config::parse_from([
            "projector",
            "--database-url",
            &self.database_url,
            "--redis-url",
            &self.redis_url,
            "--redis-prefix",
            &self.prefix,
            "--kafka-brokers",
            &self.kafka,
            "--kafka-topic",
            &self.topic,
            "--undecodable-topic",
            &self.undecodable,
            "--kafka-group",
            &self.group,
            "--ops-address",
            "127.0.0.1:0",
            setting,
        ])
    }

    /// A projector as a process of its own.
    pub(crate) fn project_in_a_process(&self, place: &Place) -> Process {
        let patience = "600000";
        let settings = [
            ("INKSTREAM_DATABASE_URL", self.database_url.as_str()),
            ("INKSTREAM_REDIS_URL", &self.redis_url),
            ("INKSTREAM_REDIS_PREFIX", &self.prefix),
            ("INKSTREAM_KAFKA_BROKERS", &self.kafka),
            ("INKSTREAM_KAFKA_TOPIC", &self.topic),
            ("INKSTREAM_KAFKA_GROUP", &self.group),
            ("INKSTREAM_UNDECODABLE_TOPIC", &self.undecodable),
            ("INKSTREAM_OPS_ADDRESS", "127.0.0.1:0"),
            ("INKSTREAM_PATIENCE_MS", patience),
        ];
        service_process("projector", &place.log(), &settings).unwrap()
    }
}

impl Projector {
    fn run(app: App) -> Self {
        let ops_address = app.ops_address();
        let stop = CancellationToken::new();
        let running = tokio::spawn(app.run_until(stop.clone().cancelled_owned()));
        Self { ops_address, running, stop: stop.drop_guard() }
    }

    /// Tells it to stop and waits until it has.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        self.running.await.unwrap().unwrap();
    }

    /// Ends it where it stands.
    pub(crate) async fn vanish(self) {
        self.running.abort();
        assert!(self.running.await.unwrap_err().is_cancelled());
    }

    /// Why a check is not ready, or degraded; `None` if all is well with it.
    pub(crate) async fn unready(&self, check: &str) -> Option<String> {
        self.health().await.1["checks"][check]["why"].as_str().map(str::to_owned)
    }

    /// The status and the body of `/health/ready`.
    pub(crate) async fn health(&self) -> (u16, Value) {
        let url = format!("http://{}/health/ready", self.ops_address);
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// What `/metrics` says, line by line.
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.ops_address);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// Waits until it stands still somewhere, and tells why.
    pub(crate) async fn halts(&self) -> String {
        eventually_some("a partition stands still", async || self.unready("folds").await).await
    }
}

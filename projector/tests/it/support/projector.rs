//! A projector in this process, told to use the blog's log, topic and views.

use std::net::SocketAddr;

use clap::Parser as _;
use projector::{App, Config};
use serde_json::Value;
use testkit::{eventually, shared};
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

    async fn project_with(&self, setting: &str) -> Projector {
        let config = Config::parse_from([
            "projector",
            "--database-url",
            &self.database_url,
            "--redis-url",
            &self.redis_url,
            "--redis-prefix",
            &self.prefix,
            "--kafka-brokers",
            &shared().kafka,
            "--kafka-topic",
            &self.topic,
            "--kafka-group",
            &self.group,
            "--ops-address",
            "127.0.0.1:0",
            setting,
        ]);
        let app = App::build(config).await.unwrap();
        let ops_address = app.ops_address();
        let stop = CancellationToken::new();
        let running = tokio::spawn(app.run_until(stop.clone().cancelled_owned()));
        Projector { ops_address, running, stop: stop.drop_guard() }
    }
}

impl Projector {
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

    /// Why a check is not ready; `None` if it is.
    pub(crate) async fn unready(&self, check: &str) -> Option<String> {
        let url = format!("http://{}/health/ready", self.ops_address);
        let health: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        health["checks"][check]["why"].as_str().map(str::to_owned)
    }

    /// Waits until it stands still somewhere, and tells why.
    pub(crate) async fn halts(&self) -> String {
        let mut why = None;
        eventually("a partition stands still", async || {
            why = self.unready("folds").await;
            why.is_some()
        })
        .await;
        why.unwrap()
    }
}

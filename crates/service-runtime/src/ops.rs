//! The ops port: is it alive, is it ready, what are its numbers. Kept apart from the public port, so
//! that it answers when that one is busy and is not open to the world.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::{self, Limits};
use crate::{Readiness, Server, health, metrics};

/// `/health/live`, `/health/ready` and `/metrics`.
#[derive(Debug)]
pub struct Ops {
    server: Server,
    numbers: PrometheusHandle,
}

impl Ops {
    pub async fn bind(address: SocketAddr, readiness: Readiness) -> anyhow::Result<Self> {
        metrics::describe(server::METRICS)?;
        let numbers = metrics::install()?;
        let routes = Router::new()
            .route("/health/live", get(async || Json(json!({ "live": true }))))
            .route("/health/ready", get(ready).with_state(readiness))
            .route("/metrics", get(render).with_state(numbers.clone()));
        // Nothing here takes longer than a moment.
        let server = Server::bind(address, routes, Limits::ops(), Duration::from_secs(1))
            .await
            .context("while opening the ops port")?;
        Ok(Self { server, numbers })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let tidy = metrics::keep_tidy(self.numbers, stop.clone());
        let (served, ()) = tokio::join!(self.server.run(stop), tidy);
        served
    }
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, Json<Value>) {
    let states = readiness.states();
    let all = states.values().all(health::State::is_ready);
    let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut told = json!({ "ready": all });
    if states.values().any(|state| matches!(state, health::State::Degraded(_))) {
        told["degraded"] = true.into();
    }
    told["checks"] = states
        .into_iter()
        .map(|(name, state)| {
            let state = match state {
                health::State::Ready => json!({ "ready": true }),
                health::State::Degraded(why) => {
                    json!({ "ready": true, "degraded": true, "why": why })
                }
                health::State::NotReady(why) => json!({ "ready": false, "why": why }),
            };
            (name.to_owned(), state)
        })
        .collect();
    (status, Json(told))
}

async fn render(State(numbers): State<PrometheusHandle>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], numbers.render())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ops_port_tells_how_the_process_fares() {
        let readiness = Readiness::new();
        let postgres = readiness.check("postgres");
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let ops = Ops::bind(any_port, readiness).await.unwrap();
        let (base, stop) = (format!("http://{}", ops.address()), CancellationToken::new());
        let running = tokio::spawn(ops.run(stop.clone()));
        let get = async |path| {
            let answer = reqwest::get(format!("{base}{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };

        assert_eq!(get("/health/live").await.0, 200);
        postgres.not_ready("connection refused");
        let (status, body) = get("/health/ready").await;
        let told = json!({ "ready": false, "checks":
            { "postgres": { "ready": false, "why": "connection refused" } } });
        assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (503, told));
        postgres.degraded("slow");
        let (status, body) = get("/health/ready").await;
        let told = json!({ "ready": true, "degraded": true, "checks":
            { "postgres": { "ready": true, "degraded": true, "why": "slow" } } });
        assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, told));
        postgres.ready();
        let (status, body) = get("/health/ready").await;
        let told = json!({ "ready": true, "checks": { "postgres": { "ready": true } } });
        assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, told));

        let things = crate::Metric {
            name: "things_total",
            kind: crate::MetricKind::Counter,
            labels: &["kind"],
            help: "Things that were counted",
        };
        crate::describe(&[things]).unwrap();
        ::metrics::counter!("things_total", "kind" => "test").increment(3);
        ::metrics::histogram!("things_seconds").record(0.02);
        ::metrics::histogram!("things_size").record(100.0);
        let (_, numbers) = get("/metrics").await;
        assert!(numbers.contains("things_total{kind=\"test\"} 3"), "{numbers}");
        assert!(numbers.contains("# HELP things_total Things that were counted"), "{numbers}");
        assert!(numbers.contains("things_seconds_bucket{le=\"0.025\"} 1"), "{numbers}");
        assert!(numbers.contains("things_size_bucket{le=\"128\"} 1"), "{numbers}");

        stop.cancel();
        running.await.unwrap().unwrap();
    }
}

//! The ops port: is it alive, is it ready, what are its numbers. Kept apart from the public port, so
//! that it answers when that one is busy and is not open to the world.
//!
//! It runs on a thread and a runtime of its own, from before anything else is opened. So it answers while
//! the process starts, and when the process hangs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::server::{self, Limits};
use crate::{Readiness, Server, health, metrics, progress};

/// Interval at which tasks that hang are looked for, to be logged.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// `/health/live`, `/health/ready` and `/metrics`.
#[derive(Debug)]
pub struct Ops {
    address: SocketAddr,
    /// The thread ends when this is dropped.
    stop: DropGuard,
    ended: oneshot::Receiver<anyhow::Result<()>>,
}

impl Ops {
    /// Opens the port, and answers on it from now on.
    pub async fn bind(address: SocketAddr, readiness: Readiness) -> anyhow::Result<Self> {
        metrics::describe(server::METRICS)?;
        let numbers = metrics::install()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("while making the runtime of the ops port")?;
        let stop = CancellationToken::new();
        let (bound, is_bound) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let stopped = stop.clone();
        thread::Builder::new()
            .name("ops".to_owned())
            .spawn(move || {
                let served = runtime.block_on(serve(address, readiness, numbers, bound, stopped));
                // No receiver is left if the process ends without waiting.
                let _ = end.send(served);
            })
            .context("while starting the thread of the ops port")?;
        let stop = stop.drop_guard();
        let Ok(address) = is_bound.await else {
            let why = ended.await.context("the thread of the ops port ended")?;
            return Err(why.err().unwrap_or_else(|| anyhow::anyhow!("it was stopped")))
                .context("while opening the ops port");
        };
        Ok(Self { address, stop, ended })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let ended = progress::idle(async {
            tokio::select! {
                () = stop.cancelled() => None,
                ended = &mut self.ended => Some(ended),
            }
        });
        let ended = match ended.await {
            Some(ended) => ended,
            None => {
                drop(self.stop);
                self.ended.await
            }
        };
        ended.context("the thread of the ops port ended")?
    }
}

async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    numbers: PrometheusHandle,
    bound: oneshot::Sender<SocketAddr>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let routes = Router::new()
        .route("/health/live", get(live).with_state(readiness.clone()))
        .route("/health/ready", get(ready).with_state(readiness.clone()))
        .route("/metrics", get(render).with_state(numbers.clone()));
    // Nothing here takes longer than a moment.
    let server = Server::bind(address, routes, Limits::ops(), Duration::from_secs(1)).await?;
    // The receiver is gone only if the process ends, and then this does, too.
    let _ = bound.send(server.address());
    let tidy = metrics::keep_tidy(numbers, stop.clone());
    let watch = log_stalls(readiness, stop.clone());
    let (served, (), ()) = tokio::join!(server.run(stop), tidy, watch);
    served
}

/// Logs when a task begins to hang, and when it goes on.
async fn log_stalls(readiness: Readiness, stop: CancellationToken) {
    let mut every = tokio::time::interval(WATCH_INTERVAL);
    let mut before = BTreeSet::new();
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let stalled = readiness.watchdog().stalled();
        let stalled: BTreeSet<_> = stalled.into_iter().map(|stalled| stalled.task).collect();
        for task in stalled.difference(&before) {
            tracing::error!(task, "task makes no progress");
        }
        for task in before.difference(&stalled) {
            tracing::info!(task, "task makes progress again");
        }
        before = stalled;
    }
}

/// Alive until the runtime runs no task any more: only a restart helps then. An outage, or a single task
/// that waits for a server, is no reason to restart a process.
async fn live(State(readiness): State<Readiness>) -> (StatusCode, Json<Value>) {
    let live = readiness.watchdog().is_alive();
    let status = if live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "live": live })))
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

    /// On one thread, which a task that blocks has to itself.
    #[tokio::test]
    async fn the_ops_port_answers_while_a_task_blocks_the_runtime() {
        let readiness = Readiness::new();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let ops = Ops::bind(any_port, readiness.clone()).await.unwrap();
        let mut tasks = crate::Tasks::new(
            crate::DrainArgs { drain_seconds: 60, stop_delay_seconds: 0 },
            &readiness,
        );
        let address = ops.address();
        let (names, named) = std::sync::mpsc::channel();
        let asking = thread::spawn(move || {
            let begun = std::time::Instant::now();
            loop {
                let (status, body) = get(address, "/health/ready");
                let names_it = body.contains("`blocks` has made no progress")
                    && body.contains("`runtime` has made no progress");
                if status == 503 && names_it {
                    assert_eq!(get(address, "/health/live").0, 200, "it may still recover");
                    break;
                }
                assert!(begun.elapsed() < Duration::from_secs(45), "{status} {body}");
                thread::sleep(Duration::from_millis(100));
            }
            names.send(()).unwrap();
            let begun = std::time::Instant::now();
            while get(address, "/health/ready").0 != 200 {
                assert!(begun.elapsed() < Duration::from_secs(45), "it does not recover");
                thread::sleep(Duration::from_millis(100));
            }
        });
        let (recovered, has_recovered) = oneshot::channel();
        tasks.spawn("blocks", async move |stop: CancellationToken| {
            named.recv().unwrap();
            let asked = tokio::task::spawn_blocking(move || asking.join());
            progress::idle(asked).await.unwrap().unwrap();
            recovered.send(()).unwrap();
            progress::idle(stop.cancelled()).await;
            Ok(())
        });
        tasks.spawn_last("ops", |stop| ops.run(stop));
        tasks.run_until(async { has_recovered.await.unwrap() }).await.unwrap();
    }

    /// Asks over a plain socket, which needs no runtime.
    fn get(address: SocketAddr, path: &str) -> (u16, String) {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }
}

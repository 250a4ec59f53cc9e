//! Serves a router, or what stands before one, over HTTP/1.1 until the process stops, and then finishes what
//! it has accepted.
//!
//! In place of `axum::serve`, which sets no limits. Here is the one place that bounds what a stranger can
//! take: connections, the size and the time of a head, the time of a body, and the time to read a response.

mod activity;
mod body;
mod connection;
mod limits;
mod stream;

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::response::Response;
use hyper::Request;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::{Metric, MetricKind, progress};
use activity::{Activity, Clock};

pub use body::{BodyError, RequestBody};
pub use limits::{ConnectionArgs, Limits};

/// Interval between two looks at all connections.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Metrics of a server's connections.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "http_connections",
        kind: MetricKind::Gauge,
        labels: &["port"],
        help: "Number of open connections from clients, by port: http or ops",
    },
    Metric {
        name: "http_connections_closed_total",
        kind: MetricKind::Counter,
        labels: &["port", "reason"],
        help: "Number of connections that the server closed: idle, head (not sent in time), write (response not \
            read in time) or evicted (at the limit of connections)",
    },
];

/// A listening socket and what answers there.
#[derive(Debug)]
pub struct Server<S = Router> {
    listener: TcpListener,
    address: SocketAddr,
    service: S,
    limits: Limits,
    finish_within: Duration,
}

impl<S> Server<S>
where
    S: Service<Request<RequestBody>, Response = Response, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    /// Opens the port; port 0 lets the system choose one. Once stopped, requests in flight have
    /// `finish_within` to end.
    pub async fn bind(
        address: SocketAddr,
        service: S,
        limits: Limits,
        finish_within: Duration,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("could not listen on {address}"))?;
        let address = listener.local_addr().context("while looking up the port we listen on")?;
        Ok(Self { listener, address, service, limits, finish_within })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then closes the port and idle connections, and lets requests in flight end.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut connections = Connections::new(self.limits);
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // The look comes round even if no client does.
            progress::tick();
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                () = connections.ended() => continue,
                _ = looks.tick() => {
                    connections.look_at_all();
                    continue;
                }
                accepted = self.listener.accept(), if connections.have_room() => accepted,
            };
            match accepted {
                Ok((stream, _peer)) => connections.serve(stream, self.service.clone()),
                Err(error) => {
                    // Most likely too many open files; or the client went away at once.
                    tracing::warn!(%error, "a connection could not be accepted");
                    connections.make_room();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        connections.end(self.finish_within).await;
        Ok(())
    }
}

/// The open connections of a server.
struct Connections {
    limits: Limits,
    clock: Arc<Clock>,
    tasks: JoinSet<()>,
    open: HashMap<Id, Arc<Activity>>,
    count: metrics::Gauge,
}

impl Connections {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            clock: Arc::new(Clock::new()),
            tasks: JoinSet::new(),
            open: HashMap::new(),
            count: metrics::gauge!("http_connections", "port" => limits.port),
        }
    }

    fn have_room(&self) -> bool {
        self.open.len() < self.limits.connections
    }

    fn serve<S>(&mut self, stream: TcpStream, service: S)
    where
        S: Service<Request<RequestBody>, Response = Response, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
    {
        let activity = Arc::new(Activity::new(self.clock.clone()));
        let serving = connection::serve(stream, service, activity.clone(), self.limits);
        let task = self.tasks.spawn(serving);
        self.open.insert(task.id(), activity);
        self.count.increment(1);
        if !self.have_room() {
            self.make_room();
        }
    }

    /// Completes when a connection has ended, and never if there is none.
    async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => {
                let id = ended.map_or_else(|error: JoinError| error.id(), |(id, ())| id);
                self.open.remove(&id);
                self.count.decrement(1);
            }
            None => std::future::pending().await,
        }
    }

    /// Closes what is over a limit of time.
    fn look_at_all(&mut self) {
        self.clock.look();
        for activity in self.open.values() {
            activity.check(&self.limits);
        }
        if !self.have_room() {
            self.make_room();
        }
    }

    /// Closes the connections that have waited longest for a request: a hundredth of all, so that a flood
    /// of new ones does not cause a search for each.
    fn make_room(&self) {
        let since = |activity: &Arc<Activity>| {
            Some((activity.evictable_since(&self.limits)?, activity.clone()))
        };
        let mut waiting: Vec<_> = self.open.values().filter_map(since).collect();
        let count = (self.limits.connections / 100).max(1).min(waiting.len());
        if count < waiting.len() {
            waiting.select_nth_unstable_by_key(count, |(since, _)| *since);
        }
        for (_, activity) in &waiting[..count] {
            activity.evict();
        }
    }

    /// Lets requests in flight end, and cuts off what does not.
    async fn end(mut self, within: Duration) {
        for activity in self.open.values() {
            activity.stop();
        }
        let all_ended = async {
            let mut looks = interval(LOOK_INTERVAL);
            while !self.open.is_empty() {
                progress::tick();
                tokio::select! {
                    () = self.ended() => {}
                    _ = looks.tick() => self.look_at_all(),
                }
            }
        };
        if tokio::time::timeout(within, all_ended).await.is_err() {
            // A client that has not sent all of its request or read its response until now must not keep
            // the process running.
            tracing::warn!(
                connections = self.tasks.len(),
                "cutting off connections that do not end"
            );
            self.tasks.shutdown().await;
            self.count.decrement(self.open.len() as f64);
        }
    }
}

#[cfg(test)]
mod tests;

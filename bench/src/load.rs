//! Clients that each send their next request when the last is answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::figures::{median, percentile};
use crate::http::Connection;
use crate::requests::Request;

/// How many clients there are, each with a connection of its own.
pub(crate) const CLIENTS: usize = 64;

/// What they did in one round.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) answers: usize,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// What came of several rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Medians {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Medians {
    pub(crate) fn of(rounds: &[Round]) -> Self {
        let of = |value: fn(&Round) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
        Self {
            per_second: of(|round| round.per_second),
            p50_ms: of(|round| round.p50_ms),
            p99_ms: of(|round| round.p99_ms),
        }
    }
}

/// Sends a request from all clients for so many seconds; every answer must have this status.
pub(crate) async fn closed_loop(
    to: SocketAddr,
    request: &Request,
    status: u16,
    seconds: u32,
) -> anyhow::Result<Round> {
    let mut connections = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        connections.push(Connection::open(to).await?);
    }
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds.into());
    let mut clients = JoinSet::new();
    for connection in connections {
        clients.spawn(ask_until(end, connection, request.clone(), status));
    }
    let mut times = Vec::new();
    while let Some(client) = clients.join_next().await {
        times.extend(client??);
    }
    let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    let (p50_ms, p99_ms) = (percentile(&times, 50), percentile(&times, 99));
    Ok(Round { answers: times.len(), per_second, p50_ms, p99_ms })
}

async fn ask_until(
    end: Instant,
    mut connection: Connection,
    mut request: Request,
    status: u16,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut now = Instant::now();
    while now < end {
        let answer = connection.ask(request.next()).await?;
        if answer.status != status {
            return Err(answer.unexpected());
        }
        let answered = Instant::now();
        times.push(answered - now);
        now = answered;
    }
    Ok(times)
}

//! Clients that each send their next request when the last is answered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::figures::{median, percentile};
use crate::http::{Answer, Connection};
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

/// What one client asks.
pub(crate) trait Client: Send + 'static {
    /// The next request; without one, the client is done.
    fn next(&mut self) -> Option<&[u8]>;

    /// Looks at the answer to it. An error ends the round of all.
    fn look_at(&mut self, answer: Answer<'_>) -> anyhow::Result<()>;
}

/// Asks for the same again and again.
#[derive(Debug, Clone)]
struct Same {
    request: Request,
    status: u16,
}

impl Client for Same {
    fn next(&mut self) -> Option<&[u8]> {
        Some(self.request.next())
    }

    fn look_at(&mut self, answer: Answer<'_>) -> anyhow::Result<()> {
        if answer.status == self.status { Ok(()) } else { Err(answer.unexpected()) }
    }
}

/// Sends a request from all clients for so many seconds; every answer must have this status.
pub(crate) async fn closed_loop(
    to: SocketAddr,
    request: &Request,
    status: u16,
    seconds: u32,
) -> anyhow::Result<Round> {
    let same = Same { request: request.clone(), status };
    run(to, vec![same; CLIENTS], seconds).await
}

/// Lets clients ask for so many seconds, or until all are done.
pub(crate) async fn run(
    to: SocketAddr,
    clients: Vec<impl Client>,
    seconds: u32,
) -> anyhow::Result<Round> {
    let mut connected = Vec::with_capacity(clients.len());
    for client in clients {
        connected.push((Connection::open(to).await?, client));
    }
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds.into());
    let mut asking = JoinSet::new();
    for (connection, client) in connected {
        asking.spawn(ask_until(end, connection, client));
    }
    let mut times = Vec::new();
    while let Some(client) = asking.join_next().await {
        times.extend(client??);
    }
    let per_second = times.len() as f64 / began.elapsed().as_secs_f64();
    let (p50_ms, p99_ms) = (percentile(&times, 50), percentile(&times, 99));
    Ok(Round { answers: times.len(), per_second, p50_ms, p99_ms })
}

async fn ask_until(
    end: Instant,
    mut connection: Connection,
    mut client: impl Client,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut now = Instant::now();
    while now < end {
        let Some(request) = client.next() else { break };
        let answer = connection.ask(request).await?;
        let answered = Instant::now();
        client.look_at(answer)?;
        times.push(answered - now);
        now = answered;
    }
    Ok(times)
}

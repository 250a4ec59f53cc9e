//! Serves a router, or what stands before one, over HTTP/1.1 until told to stop, and then finishes what it has accepted.
//!
//! In place of `axum::serve`, which waits for ever: for the headers of a request, and when stopping for
//! a client that has sent half of one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How long a connection may take to send the head of its next request, idle time included. Longer
/// than most proxies and clients keep an idle connection, so that it is they who close it.
const HEADER_READ_LIMIT: Duration = Duration::from_secs(75);

/// A listening socket and what answers there.
#[derive(Debug)]
pub struct Server<S = Router> {
    listener: TcpListener,
    address: SocketAddr,
    service: S,
    finish_within: Duration,
}

impl<S> Server<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    /// Opens the port; port 0 lets the system choose one. Once stopped, requests in hand have
    /// `finish_within` to end.
    pub async fn bind(
        address: SocketAddr,
        service: S,
        finish_within: Duration,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("could not listen on {address}"))?;
        let address = listener.local_addr().context("while looking up the port we listen on")?;
        Ok(Self { listener, address, service, finish_within })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then closes the port and idle connections, and lets requests in hand end.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
                Some(_ended) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _peer)) => {
                    connections.spawn(serve(stream, self.service.clone(), stop.clone()));
                }
                Err(error) => {
                    // Most likely too many open files, which passes as connections end; or the
                    // client went away at once.
                    tracing::warn!(%error, "A connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.finish_within, all_ended).await.is_err() {
            // Whoever has not sent the whole of a request or read its answer until now must not
            // keep the process alive.
            tracing::warn!("Cutting off {} connections that do not end", connections.len());
            connections.shutdown().await;
        }
        Ok(())
    }
}

async fn serve<S>(stream: TcpStream, service: S, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    // Answers are small and written at once; waiting for more to send only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set: {error}");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        // Clients come and go; nothing here is ours to mend.
        tracing::debug!(%error, "A connection ended: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::AsyncWriteExt as _;
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    #[tokio::test]
    async fn a_request_in_hand_is_answered_after_the_stop() {
        let (address, stop, server, begun) = start(Duration::from_secs(60)).await;
        let answer = tokio::spawn(reqwest::get(format!("http://{address}/slow")));
        begun.notified().await;
        stop.cancel();
        let answer = answer.await.unwrap().unwrap();
        assert_eq!(answer.text().await.unwrap(), "at last");
        server.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "the port is still open");
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_request_is_cut_off() {
        let (address, stop, server, _begun) = start(Duration::from_millis(100)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /slow HTTP/1.1\r\nHost").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(30), server).await;
        ended.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn idle_connections_do_not_delay_the_stop() {
        let (address, stop, server, _begun) = start(Duration::from_secs(60)).await;
        let client = reqwest::Client::new();
        client.get(format!("http://{address}/slow")).send().await.unwrap().text().await.unwrap();
        let _silent = TcpStream::connect(address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(30), server).await;
        ended.unwrap().unwrap().unwrap();
    }

    /// The last of these is told when a request is in hand.
    async fn start(
        finish_within: Duration,
    ) -> (SocketAddr, CancellationToken, JoinHandle<anyhow::Result<()>>, Arc<Notify>) {
        let begun = Arc::<Notify>::default();
        let in_hand = Arc::clone(&begun);
        let slow = async move || {
            in_hand.notify_one();
            tokio::time::sleep(Duration::from_millis(300)).await;
            "at last"
        };
        let router = Router::new().route("/slow", get(slow));
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(any_port, router, finish_within).await.unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        (address, stop.clone(), tokio::spawn(server.run(stop)), begun)
    }
}

//! Tests of the limits, and of a server that stops, as a client sees them.

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;

/// More than a busy machine takes for anything here.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than the system keeps for a socket that nothing reads.
const MANY_BYTES: usize = 32 << 20;

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_stop() {
    let server = Running::start(patient()).await;
    let answer = tokio::spawn(reqwest::get(format!("http://{}/slow", server.address)));
    server.begun.notified().await;
    server.stop.cancel();
    let answer = answer.await.unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "at last");
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "the port is still open");
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_is_cut_off() {
    let server = Running::start_with(patient(), Duration::from_millis(100)).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /slow HTTP/1.1\r\nHost").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    server.ends().await;
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_stop() {
    let server = Running::start(patient()).await;
    let client = reqwest::Client::new();
    let slow = format!("http://{}/slow", server.address);
    client.get(slow).send().await.unwrap().text().await.unwrap();
    let _silent = server.connect().await;
    sleep(Duration::from_millis(100)).await;
    server.ends().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_and_closed() {
    let server = Running::start(Limits { head: Duration::from_secs(1), ..patient() }).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: b").await.unwrap();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_although_nothing_reads_its_end() {
    let server = Running::start(patient()).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /slow HTTP/1.1\r\nhost: b\r\nx: ").await.unwrap();
    client.write_all(&vec![b'x'; 1 << 20]).await.unwrap();
    client.write_all(b"\r\n\r\n").await.unwrap();
    let answer = rest(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn connections_without_requests_are_closed_in_the_end() {
    let server = Running::start(Limits { idle: Duration::from_secs(1), ..patient() }).await;
    let mut silent = server.connect().await;
    let mut kept_alive = server.connect().await;
    kept_alive.write_all(b"GET /nothing HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
    assert!(rest(&mut kept_alive).await.starts_with("HTTP/1.1 404 "));
    assert_eq!(rest(&mut silent).await, "");
}

#[tokio::test]
async fn at_the_limit_connections_that_only_wait_make_room_for_requests() {
    let server = Running::start(Limits { connections: 8, ..patient() }).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /never HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
    server.begun.notified().await;
    let mut silent = vec![];
    for _ in 0..16 {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /slow HT").await.unwrap();
        silent.push(stream);
    }
    for _ in 0..3 {
        let client = reqwest::Client::new();
        let answer = client.get(format!("http://{}/slow", server.address)).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), "at last");
    }
    let mut byte = [0];
    let cut_off = timeout(Duration::from_millis(100), busy.read(&mut byte)).await;
    assert!(cut_off.is_err(), "a request in flight was cut off");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_response_is_cut_off() {
    let server = Running::start(Limits { write: Duration::from_secs(1), ..patient() }).await;
    let mut client = server.connect().await;
    client.write_all(b"GET /large HTTP/1.1\r\nhost: b\r\n\r\n").await.unwrap();
    server.ended.notified().await;
    let mut received = vec![];
    // It ends with an error or early, whatever the system had kept.
    let _ = timeout(PATIENCE, client.read_to_end(&mut received)).await.unwrap();
    assert!(received.len() < MANY_BYTES, "all of it was received");
}

#[tokio::test]
async fn a_body_that_makes_no_progress_fails() {
    let limits = Limits { body_progress: Duration::from_secs(1), ..patient() };
    let server = Running::start(limits).await;
    for head in ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let mut client = server.connect().await;
        let head = format!("POST /read HTTP/1.1\r\nhost: b\r\n{head}");
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_trickles_fails_when_its_time_is_over() {
    let limits = Limits { body: Duration::from_secs(1), ..patient() };
    let server = Running::start(limits).await;
    let (mut read, mut write) = server.connect().await.into_split();
    write
        .write_all(b"POST /read HTTP/1.1\r\nhost: b\r\ncontent-length: 9999\r\n\r\n")
        .await
        .unwrap();
    let trickle = tokio::spawn(async move {
        while write.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = vec![0; 12];
    timeout(PATIENCE, read.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 408");
    trickle.abort();
}

#[tokio::test]
async fn an_early_response_is_received_by_a_client_that_writes_before_it_reads() {
    let server = Running::start(patient()).await;
    for size in [100 << 10, 5 << 20] {
        for head in [
            format!("content-length: {size}\r\n\r\n"),
            "transfer-encoding: chunked\r\n\r\n".to_owned(),
        ] {
            let mut client = server.connect().await;
            let is_chunked = head.starts_with("transfer");
            let head = format!("POST /refuse HTTP/1.1\r\nhost: b\r\n{head}");
            client.write_all(head.as_bytes()).await.unwrap();
            for piece in vec![b'x'; size].chunks(size / 10) {
                let piece = match is_chunked {
                    true => [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(),
                    false => piece.to_vec(),
                };
                client.write_all(&piece).await.expect("the connection was reset");
                sleep(Duration::from_millis(20)).await;
            }
            let answer = rest(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn an_early_response_comes_in_place_of_100_continue() {
    let server = Running::start(patient()).await;
    for (path, expected) in [("/refuse", "HTTP/1.1 401 "), ("/read", "HTTP/1.1 100 ")] {
        let mut client = server.connect().await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: b\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; expected.len()];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }
}

#[tokio::test]
async fn a_connection_carries_many_requests_if_their_bodies_are_read() {
    let server = Running::start(patient()).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        client
            .write_all(b"POST /read HTTP/1.1\r\nhost: b\r\ncontent-length: 2\r\n\r\n{}")
            .await
            .unwrap();
        let mut answer = vec![0; 4096];
        let count = client.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    }
}

/// Limits that no test reaches unless it is about them.
fn patient() -> Limits {
    Limits {
        idle: PATIENCE,
        head: PATIENCE,
        min_wait: Duration::from_secs(2),
        body_progress: PATIENCE,
        body: PATIENCE,
        write: PATIENCE,
        ..Limits::ops()
    }
}

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    /// Notified when a request is in flight.
    begun: Arc<Notify>,
    /// Notified when the body of a large response has been dropped.
    ended: Arc<Notify>,
}

impl Running {
    async fn start(limits: Limits) -> Self {
        Self::start_with(limits, PATIENCE).await
    }

    async fn start_with(limits: Limits, finish_within: Duration) -> Self {
        let (begun, ended) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (slow, never) = (begun.clone(), begun.clone());
        let slow = async move || {
            slow.notify_one();
            sleep(Duration::from_millis(300)).await;
            "at last"
        };
        let never = async move || {
            never.notify_one();
            std::future::pending::<()>().await;
        };
        let dropped = ended.clone();
        let large = async move || {
            let dropped = NotifyOnDrop(dropped);
            let pieces = (0..MANY_BYTES >> 16).map(move |_| {
                let _ = &dropped;
                Ok::<_, Infallible>(vec![0; 1 << 16])
            });
            Body::from_stream(futures::stream::iter(pieces))
        };
        let read = async |body: Body| match to_bytes(body, usize::MAX).await {
            Ok(_) => StatusCode::OK.into_response(),
            Err(error) if is_stalled(&error) => StatusCode::REQUEST_TIMEOUT.into_response(),
            Err(_) => StatusCode::BAD_REQUEST.into_response(),
        };
        let router = Router::new()
            .route("/slow", get(slow))
            .route("/never", get(never))
            .route("/large", get(large))
            .route("/read", post(read))
            .route("/refuse", post(async || StatusCode::UNAUTHORIZED));
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::bind(any_port, router, limits, finish_within).await.unwrap();
        let (address, stop) = (server.address(), CancellationToken::new());
        let task = tokio::spawn(server.run(stop.clone()));
        Self { address, stop, task, begun, ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn ends(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn is_stalled(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(BodyError::Stalled))
        || error.source().is_some_and(is_stalled)
}

/// All that the server still sends before it closes the connection.
async fn rest(client: &mut TcpStream) -> String {
    let mut bytes = vec![];
    timeout(PATIENCE, client.read_to_end(&mut bytes))
        .await
        .expect("the connection stays open")
        .expect("the connection was reset");
    String::from_utf8_lossy(&bytes).into_owned()
}

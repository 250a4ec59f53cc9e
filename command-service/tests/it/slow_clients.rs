//! Clients that send slowly, too much, or something broken: they see why they are rejected, and others do
//! not wait for them.

use std::time::Duration;

use futures::future::select_all;
use reqwest::Method;
use serde_json::{Value, json};
use testkit::eventually_some;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Service, new_database, start, start_with, token, told};

/// More than a busy machine takes for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_announced_and_never_sent_take_no_capacity() {
    let service = start_with(new_database().await, &["--requests-kib=2048"]).await;
    let announced = "content-type: application/json\r\ncontent-length: 1048576\r\n\r\n";
    let strangers = connect_all(&service, 200, &format!("idempotency-key: x\r\n{announced}")).await;
    // The same as an author: a fifth of what is needed for all of them, were the announcement paid for.
    let bearer = format!("authorization: Bearer {}\r\n", token("mallory"));
    let author = connect_all(&service, 10, &format!("{bearer}{announced}")).await;
    for _ in 0..20 {
        assert_eq!(publish(&service).await.0, 201);
    }
    for mut stranger in strangers {
        assert!(rest(&mut stranger).await.starts_with("HTTP/1.1 401 "));
    }
    drop(author);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_with_more_in_flight_than_their_share_does_not_lock_out_others() {
    let service = start_with(new_database().await, &["--requests-kib=4096"]).await;
    let half = format!(
        "authorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 900000\r\n\r\n{}",
        token("mallory"),
        " ".repeat(600_000)
    );
    // One of them fits into a share. On a machine that stands still it may be over before the others begin.
    let refused = eventually_some("a request beyond the share is refused", async || {
        let clients = connect_all(&service, 3, &half).await;
        let answers =
            clients.into_iter().map(|mut client| Box::pin(async move { rest(&mut client).await }));
        let (answer, _, others) = select_all(answers).await;
        assert_eq!(publish(&service).await.0, 201);
        drop(others);
        answer.starts_with("HTTP/1.1 429 ").then_some(answer)
    })
    .await;
    assert!(refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("\"code\":\"rate_limited\""), "{refused}");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_a_timeout() {
    let service = start().await;
    let key = "idempotency-key: x\r\n";
    for (key, body) in [
        ("", "content-length: 10\r\n\r\n{"),
        (key, "content-length: 10\r\n\r\n{"),
        (key, "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"),
    ] {
        let mut client = connect(&service, &annes(&format!("{key}{body}"))).await;
        let answer = rest(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("\"code\":\"request_timeout\""), "{answer}");
    }
}

#[tokio::test]
async fn broken_framing_is_a_bad_request_with_a_key_and_without() {
    let service = start().await;
    for key in ["", "idempotency-key: x\r\n"] {
        for body in
            ["transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n", "content-length: 10\r\n\r\n{"]
        {
            let mut client = connect(&service, &annes(&format!("{key}{body}"))).await;
            client.shutdown().await.unwrap();
            let answer = rest(&mut client).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{key}{body}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_although_its_client_writes_before_it_reads() {
    let service = start().await;
    for key in ["", "idempotency-key: x\r\n"] {
        for size in [(1 << 20) + 1, 2 << 20, 5 << 20] {
            let chunk = format!("{size:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(size));
            for framed in [
                format!("content-length: {size}\r\n\r\n{}", " ".repeat(size)),
                format!("transfer-encoding: chunked\r\n\r\n{chunk}"),
            ] {
                let mut client = connect(&service, &annes(&format!("{key}{framed}"))).await;
                let answer = rest(&mut client).await;
                assert!(answer.starts_with("HTTP/1.1 413 "), "{size}: {answer}");
                assert!(answer.contains("\"code\":\"too_large\""), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_a_body_is_told_the_final_status() {
    let service = start().await;
    let asks = "expect: 100-continue\r\ncontent-length: ";
    for (head, expected) in [
        (annes(&format!("{asks}2\r\n\r\n")), "HTTP/1.1 100 "),
        (annes(&format!("{asks}2000000\r\n\r\n")), "HTTP/1.1 413 "),
        (annes(&format!("idempotency-key: x\r\n{asks}2000000\r\n\r\n")), "HTTP/1.1 413 "),
        (annes(&format!("idempotency-key: a b\r\n{asks}2\r\n\r\n")), "HTTP/1.1 400 "),
        (format!("{asks}2\r\n\r\n"), "HTTP/1.1 401 "),
        (format!("idempotency-key: x\r\n{asks}2\r\n\r\n"), "HTTP/1.1 401 "),
        (
            annes(&format!("{asks}2\r\n\r\n")).replace("application/json", "text/plain"),
            "HTTP/1.1 415 ",
        ),
    ] {
        let mut client = connect(&service, &head).await;
        let mut status = vec![0; expected.len()];
        timeout(PATIENCE, client.read_exact(&mut status)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&status), expected, "{head}");
    }
}

#[tokio::test]
async fn a_request_names_its_host_exactly_once() {
    let service = start().await;
    for (version, hosts, status) in [
        ("1.1", "host: blog\r\n", 401),
        ("1.1", "", 400),
        ("1.1", "host: blog\r\nhost: blog\r\n", 400),
        ("1.1", "host: b l o g\r\n", 400),
        ("1.0", "", 401),
    ] {
        let mut client = TcpStream::connect(service.address()).await.unwrap();
        let head = format!("POST /posts HTTP/{version}\r\n{hosts}connection: close\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut client).await;
        assert!(answer.starts_with(&format!("HTTP/{version} {status} ")), "{head}{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

async fn publish(service: &Service) -> (u16, Value) {
    let body = json!({ "title": "a", "content": "b", "status": "draft" });
    told(service.anne(Method::POST, "/posts").json(&body)).await
}

/// The rest of a request of Anne's whose body is JSON.
fn annes(rest: &str) -> String {
    format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n{rest}", token("anne"))
}

async fn connect_all(service: &Service, count: usize, rest: &str) -> Vec<TcpStream> {
    let mut streams = vec![];
    for _ in 0..count {
        streams.push(connect(service, rest).await);
    }
    streams
}

/// Sends `POST /posts` with what follows its first lines.
async fn connect(service: &Service, rest: &str) -> TcpStream {
    let mut stream = TcpStream::connect(service.address()).await.unwrap();
    let request = format!("POST /posts HTTP/1.1\r\nhost: blog\r\n{rest}");
    timeout(PATIENCE, stream.write_all(request.as_bytes()))
        .await
        .expect("nothing reads the body")
        .expect("the connection was reset");
    stream
}

/// All that the service still sends before it closes the connection.
async fn rest(client: &mut TcpStream) -> String {
    let mut bytes = vec![];
    timeout(PATIENCE, client.read_to_end(&mut bytes))
        .await
        .expect("the connection stays open")
        .expect("the connection was reset");
    String::from_utf8_lossy(&bytes).into_owned()
}

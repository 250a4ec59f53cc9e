//! Wires break and mend when a test says so.

use std::time::{Duration, Instant};

use testkit::{Proxy, Way, create_topic, eventually, shared, topic_partitions, unique_name};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// A server that says everything back.
async fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("no port");
    let address = listener.local_addr().expect("no address").to_string();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn says_back(client: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    client.write_all(b"hello").await.is_ok()
        && client.read_exact(&mut answer).await.is_ok()
        && &answer == b"hello"
}

#[tokio::test]
async fn a_cut_wire_breaks_connections_and_refuses_new_ones_until_it_is_restored() {
    let proxy = Proxy::start(&echo().await);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(says_back(&mut client).await);

    proxy.cut();
    assert!(!says_back(&mut client).await);
    assert!(TcpStream::connect(proxy.address()).await.is_err());

    proxy.restore();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(says_back(&mut client).await);
}

#[tokio::test]
async fn a_slow_wire_takes_its_time_and_loses_nothing() {
    let proxy = Proxy::start(&echo().await);
    proxy.slow_down(Way::Down, 100);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let begun = Instant::now();
    for _ in 0..5 {
        assert!(says_back(&mut client).await);
    }
    // The fifth answer waits until four times five bytes have had their time.
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stalled_wire_holds_everything_back_and_loses_nothing() {
    let proxy = Proxy::start(&echo().await);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(says_back(&mut client).await);

    proxy.stall();
    client.write_all(b"later").await.unwrap();
    let mut late = TcpStream::connect(proxy.address()).await.unwrap();
    late.write_all(b"later").await.unwrap();
    let mut answer = [0; 5];
    let waited = Duration::from_millis(200);
    assert!(timeout(waited, client.read_exact(&mut answer)).await.is_err());
    assert!(timeout(waited, late.read_exact(&mut answer)).await.is_err());

    proxy.restore();
    for waiting in [&mut client, &mut late] {
        let mut answer = [0; 5];
        waiting.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"later");
    }
}

#[tokio::test]
async fn a_wire_breaks_right_behind_the_byte_it_was_told() {
    let proxy = Proxy::start(&echo().await);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(says_back(&mut client).await);
    assert_eq!((proxy.carried(Way::Up), proxy.carried(Way::Down)), (5, 5));

    proxy.break_after(Way::Down, 3);
    assert!(!says_back(&mut client).await);
    assert_eq!((proxy.carried(Way::Up), proxy.carried(Way::Down)), (10, 8));
    let mut another = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(says_back(&mut another).await);
}

#[tokio::test]
async fn what_is_kept_back_arrives_late_and_its_client_is_gone() {
    let proxy = Proxy::start(&echo().await);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(says_back(&mut client).await);

    proxy.keep_back();
    client.write_all(b"later").await.unwrap();
    eventually("it is kept back", async || proxy.kept_back() == 5).await;
    proxy.lose_clients();
    assert_eq!(client.read(&mut [0; 5]).await.unwrap_or(0), 0);
    let mut another = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(says_back(&mut another).await);

    assert_eq!(proxy.kept_back(), 5);
    proxy.deliver();
    eventually("the server has answered it", async || proxy.kept_back() == 0).await;
}

#[tokio::test]
async fn kafkas_clients_stay_behind_the_proxy_they_came_through() {
    let proxy = shared().kafka_proxy().await;
    let topic = unique_name("proxied");
    create_topic(&proxy.address(), &topic, 2).await;

    proxy.cut();
    let straight = topic_partitions(&shared().kafka, &topic).await;
    assert_eq!(straight, 2);
    proxy.restore();
    assert_eq!(topic_partitions(&proxy.address(), &topic).await, 2);
}

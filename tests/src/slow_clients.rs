//! Clients that occupy connections and give nothing for it, each in one of the ways in which a client can be slow.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

/// Between the end of a connection and the next of the same client.
const PAUSE: Duration = Duration::from_secs(1);

/// What a client is slow with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slowness {
    /// Opens a connection and is silent.
    Silent,
    /// Sends a half of a request's head.
    HalfHead,
    /// Announces a body of 1 MiB and sends none of it.
    NoBody,
    /// Sends a body in chunks of one byte, one a second.
    TricklingChunks,
    /// Sends a body of a known length, one byte a second.
    TricklingBody,
    /// Asks for a large response a hundred times and reads nothing.
    UnreadResponse,
    /// Reads one response and keeps the connection.
    Idle,
}

impl Slowness {
    pub const ALL: [Self; 7] = [
        Self::Silent,
        Self::HalfHead,
        Self::NoBody,
        Self::TricklingChunks,
        Self::TricklingBody,
        Self::UnreadResponse,
        Self::Idle,
    ];
}

/// Slow clients of one service. Dropping them ends their connections.
#[derive(Debug)]
pub struct SlowClients {
    _clients: JoinSet<()>,
    /// How many of them have sent what they send at first.
    begun: watch::Receiver<usize>,
}

#[derive(Debug)]
struct Plan {
    slowness: Slowness,
    to: SocketAddr,
    token: String,
}

impl SlowClients {
    /// Connects so many clients to a service at `http://host:port`. Where they send a body, every second one is an
    /// author with this token, and the others have no token. A client that loses its connection opens another.
    ///
    /// # Panics
    ///
    /// If that is no such address.
    pub async fn begin(slowness: Slowness, count: usize, to: &str, token: &str) -> Self {
        let to = to.strip_prefix("http://").and_then(|address| address.parse().ok());
        let to = to.expect("no address");
        let plan = Arc::new(Plan { slowness, to, token: token.to_owned() });
        let (begins, begun) = watch::channel(0);
        let mut clients = JoinSet::new();
        for number in 0..count {
            let (plan, begins) = (plan.clone(), begins.clone());
            clients.spawn(async move {
                let mut is_first = true;
                loop {
                    let begun = || {
                        if std::mem::take(&mut is_first) {
                            begins.send_modify(|count| *count += 1);
                        }
                    };
                    // The service ends it, as it should.
                    let _ = plan.occupy(number, begun).await;
                    sleep(PAUSE).await;
                }
            });
        }
        let mut all = Self { _clients: clients, begun };
        all.begun.wait_for(|begun| *begun == count).await.expect("the clients have ended");
        all
    }
}

impl Plan {
    /// Opens a connection and keeps it for as long as the service lets it.
    async fn occupy(&self, number: usize, begun: impl FnOnce()) -> io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        // What it does not read is to fill buffers of the service, not its own.
        socket.set_recv_buffer_size(4096)?;
        let mut stream = socket.connect(self.to).await?;
        stream.write_all(self.beginning(number).as_bytes()).await?;
        begun();
        match self.slowness {
            Slowness::UnreadResponse => loop {
                sleep(PAUSE).await;
                // Fails when the service has ended the connection, without reading anything.
                stream.write_all(b" ").await?;
            },
            Slowness::TricklingChunks => trickle(stream, b"1\r\n \r\n").await,
            Slowness::TricklingBody => trickle(stream, b" ").await,
            Slowness::Silent | Slowness::HalfHead | Slowness::NoBody | Slowness::Idle => {
                read_all(&mut stream).await
            }
        }
    }

    fn beginning(&self, number: usize) -> String {
        let host = "host: blog\r\n";
        let is_author = number.is_multiple_of(2);
        let author = if is_author {
            format!("authorization: Bearer {}\r\n", self.token)
        } else {
            String::new()
        };
        let post = format!(
            "POST /posts HTTP/1.1\r\n{host}{author}idempotency-key: slow-{number}\r\ncontent-type: application/json\r\n"
        );
        let get = format!("GET /openapi.json HTTP/1.1\r\n{host}\r\n");
        match self.slowness {
            Slowness::Silent => String::new(),
            Slowness::HalfHead => format!("GET /openapi.json HTTP/1.1\r\n{host}accept"),
            Slowness::NoBody => format!("{post}content-length: 1048576\r\n\r\n"),
            Slowness::TricklingChunks => format!("{post}transfer-encoding: chunked\r\n\r\n"),
            Slowness::TricklingBody => format!("{post}content-length: 1000\r\n\r\n"),
            Slowness::UnreadResponse => get.repeat(100),
            Slowness::Idle => get,
        }
    }
}

async fn trickle(stream: TcpStream, piece: &[u8]) -> io::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let mut each = interval(Duration::from_secs(1));
    let send = async {
        loop {
            each.tick().await;
            write.write_all(piece).await?;
        }
    };
    let mut bytes = [0; 1024];
    let end = async {
        while read.read(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::select! {
        sent = send => sent,
        ended = end => ended,
    }
}

async fn read_all(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0; 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

//! HTTP/1.1 as lean as a load generator wants it, which shares its processor with what it measures: ready
//! bytes out on a connection of one's own, a status and a body back.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer takes longer; a service that does not answer ends the measurement.
const LIMIT: Duration = Duration::from_secs(15);

/// One keep-alive connection with one request on it at a time. After an error it is of no use any more.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, in the bytes in which it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = timeout(LIMIT, TcpStream::connect(address)).await.context("took too long")?;
        let stream = stream.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(8192) })
    }

    /// With whom it connects.
    pub(crate) fn peer(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.stream.peer_addr()?)
    }

    /// Sends a whole request and waits for the whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        let head = timeout(LIMIT, self.exchange(request)).await.context("no answer in time")??;
        let (bytes, body) = self.buffer.split_at(head.bytes);
        Ok(Answer { status: head.status, head: bytes, body })
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Head> {
        self.stream.write_all(request).await.context("sending a request")?;
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.context("reading an answer")?;
            ensure!(read > 0, "the connection was closed in place of an answer");
            let Some(head) = Head::read(&self.buffer)? else { continue };
            let missing = (head.bytes + head.body).checked_sub(self.buffer.len());
            match missing.context("there is more than one answer")? {
                0 => return Ok(head),
                missing => self.buffer.reserve(missing),
            }
        }
    }
}

impl Answer<'_> {
    /// Each header, in order, with its name as it was sent.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let lines = std::str::from_utf8(self.head).unwrap_or_default().lines().skip(1);
        lines.filter_map(|line| line.split_once(": "))
    }

    /// The status and the beginning of the body, for somebody who expected another.
    pub(crate) fn unexpected(&self) -> anyhow::Error {
        let text: String = String::from_utf8_lossy(self.body).chars().take(300).collect();
        anyhow::anyhow!("an unexpected answer, {}: {text}", self.status)
    }
}

/// What has to be known of the head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Its own length, with the empty line.
    bytes: usize,
    /// The length of the body behind it.
    body: usize,
}

impl Head {
    /// `None` while it is not all there. What our services never send, chunks above all, is an error.
    fn read(bytes: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| number(rest.get(..3)?));
        let status = status.context("this is no answer in HTTP/1.1")?;
        let length = bytes[..end].split(|byte| *byte == b'\n').find_map(|line| {
            let (name, value) = line.split_at_checked(b"content-length:".len())?;
            name.eq_ignore_ascii_case(b"content-length:").then(|| number(value.trim_ascii()))
        });
        let body = match (length, status) {
            (Some(length), _) => length.context("the length of the body is no number")?,
            (None, 204 | 304) => 0,
            (None, _) => bail!("the answer does not tell its length"),
        };
        let status = u16::try_from(status)?;
        Ok(Some(Self { status, bytes: end + 4, body }))
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const HEAD: &str = "HTTP/1.1 201 Created\r\nEtag: \"1\"\r\nContent-Length: 5\r\n\r\n";

    #[test]
    fn a_head_tells_its_status_and_both_lengths() {
        let head = Head { status: 201, bytes: HEAD.len(), body: 5 };
        assert_eq!(Head::read(HEAD.as_bytes()).unwrap(), Some(head));
        assert_eq!(Head::read(format!("{HEAD}Hello").as_bytes()).unwrap(), Some(head));
    }

    #[test]
    fn a_head_is_waited_for_until_it_is_all_there() {
        for end in 0..HEAD.len() {
            assert_eq!(Head::read(&HEAD.as_bytes()[..end]).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn only_some_statuses_need_no_length() {
        let not_modified = "HTTP/1.1 304 Not Modified\r\n\r\n";
        assert_eq!(Head::read(not_modified.as_bytes()).unwrap().unwrap().body, 0);
        for bad in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n",
            "SSH-2.0\r\n\r\n",
        ] {
            assert!(Head::read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_answer_may_come_in_pieces_and_the_connection_is_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..2 {
                let mut request = [0; 4];
                stream.read_exact(&mut request).await.unwrap();
                assert_eq!(&request, b"ping");
                for piece in [&HEAD[..20], &HEAD[20..], "Hel", "lo"] {
                    stream.write_all(piece.as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut connection = Connection::open(address).await.unwrap();
        for _ in 0..2 {
            let answer = connection.ask(b"ping").await.unwrap();
            assert_eq!((answer.status, answer.body), (201, &b"Hello"[..]));
            let headers: Vec<_> = answer.headers().collect();
            assert_eq!(headers, [("Etag", "\"1\""), ("Content-Length", "5")]);
        }
        server.await.unwrap();
        assert!(connection.ask(b"ping").await.is_err(), "nobody was there to answer");
    }
}

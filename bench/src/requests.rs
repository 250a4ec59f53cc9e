//! The requests that are sent, as bytes made ready beforehand.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;

/// Stands where each request gets a number of its own, which makes a title, and so a slug, of its own.
const NUMBER: &str = "################";

/// How much a post of a usual length says, in bytes.
pub(crate) const TEXT_BYTES: usize = 1100;

/// A request that is sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    number_at: Option<usize>,
}

impl Request {
    fn new(line: &str, to: SocketAddr, headers: &str, body: &str) -> Self {
        let length = body.len();
        let bytes = format!(
            "{line} HTTP/1.1\r\nhost: {to}\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        let number_at = bytes.find(NUMBER);
        Self { bytes: bytes.into_bytes(), number_at }
    }

    pub(crate) fn get(to: SocketAddr, path: &str) -> Self {
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: {to}\r\n\r\n").into_bytes();
        Self { bytes, number_at: None }
    }

    /// `POST /posts`: publishes a text under a title that nothing else has.
    pub(crate) fn publish(to: SocketAddr, token: &str, text: &str) -> Self {
        let body = format!(
            r#"{{"title":"On writing {NUMBER}","content":"{text}","summary":"How to begin","tags":["craft"]}}"#
        );
        Self::new("POST /posts", to, &headers(token), &body)
    }

    /// `PATCH /posts/{id}`: gives a post another text.
    pub(crate) fn revise(to: SocketAddr, token: &str, id: &str, text: &str) -> Self {
        let body = format!(r#"{{"content":"{NUMBER} {text}"}}"#);
        Self::new(&format!("PATCH /posts/{id}"), to, &headers(token), &body)
    }

    /// Its bytes, with the next number where it has one.
    pub(crate) fn next(&mut self) -> &[u8] {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if let Some(at) = self.number_at {
            let number = format!("{:016}", NEXT.fetch_add(1, Ordering::Relaxed));
            self.bytes[at..at + number.len()].copy_from_slice(number.as_bytes());
        }
        &self.bytes
    }
}

fn headers(token: &str) -> String {
    format!("authorization: Bearer {token}\r\ncontent-type: application/json\r\n")
}

/// About as many bytes of text.
pub(crate) fn text(bytes: usize) -> String {
    let line = "Begin at the beginning, and go on till you come to the end. ";
    line.repeat(bytes.div_ceil(line.len()))
}

/// The address behind `http://`.
pub(crate) fn address_of(url: &str) -> anyhow::Result<SocketAddr> {
    let address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
    address.with_context(|| format!("{url} is no address of a service of ours"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_a_number_of_its_own_and_the_length_it_says() {
        let to = address_of("http://127.0.0.1:8080").unwrap();
        let mut request = Request::publish(to, "token", &text(100));
        let (first, second) = (request.next().to_owned(), request.next().to_owned());
        assert_ne!(first, second);
        for request in [first, second] {
            let request = String::from_utf8(request).unwrap();
            assert!(!request.contains('#'), "{request}");
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{request}");
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }
}

//! A reader who asks for a page again and again until it shows a version, without being a load of their own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::http::Connection;
use crate::requests::Request;

/// The pause between two looks, at first. The timer makes it up to a millisecond more.
const PAUSE: Duration = Duration::from_micros(500);
/// Later it grows with the time that has passed, by this part of it: what takes long need not be known to
/// the millisecond.
const GROWTH: u32 = 8;
/// What cannot be seen by then never will be.
const LIMIT: Duration = Duration::from_secs(30);

/// Connections to the query service, for as many watchers as there are at a time.
#[derive(Debug, Clone)]
pub(crate) struct Watchers {
    to: SocketAddr,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Watchers {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { to, idle: Arc::default() }
    }

    /// Looks until a page has a version, and tells how long after `answered` a reader had it.
    pub(crate) async fn until_visible(
        &self,
        address: &str,
        version: u64,
        answered: Instant,
    ) -> anyhow::Result<Duration> {
        let mut request = Request::get(self.to, &format!("/posts/{address}"));
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self.to).await?,
        };
        loop {
            let answer = connection.ask(request.next()).await?;
            let elapsed = answered.elapsed();
            ensure!(matches!(answer.status, 200 | 404), answer.unexpected());
            if version_in(answer.body).is_some_and(|shown| shown >= version) {
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                return Ok(elapsed);
            }
            ensure!(elapsed < LIMIT, "version {version} of {address} cannot be seen");
            tokio::time::sleep(PAUSE.max(elapsed / GROWTH)).await;
        }
    }
}

/// The version that a page says it has. Not by parsing all of it: there are thousands in a second.
fn version_in(page: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"version\":";
    let at = page.windows(NAME.len()).rposition(|window| window == NAME)?;
    let digits = page.get(at + NAME.len()..)?.split(|byte| !byte.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_its_version() {
        assert_eq!(version_in(br#"{"title":"x","version":12,"content":"y"}"#), Some(12));
        assert_eq!(version_in(br#"{"version":3}"#), Some(3));
        assert_eq!(version_in(br#"{"code":"not_found"}"#), None);
        assert_eq!(version_in(br#"{"version":null}"#), None);
        assert_eq!(version_in(b""), None);
    }
}

//! Readers who come by a schedule, whether or not those before are answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::http::Connection;
use crate::load::CLIENTS;
use crate::random::{Popularity, Random};
use crate::requests::Request;
use crate::stories::slug;

/// Who reads what, and how often.
#[derive(Debug, Clone)]
pub(crate) struct Paced {
    pub(crate) to: SocketAddr,
    pub(crate) per_second: u64,
    /// The most popular first.
    pub(crate) posts: Arc<Vec<usize>>,
    pub(crate) popularity: Arc<Popularity>,
}

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// From when each was due to its answer.
    pub(crate) took: Vec<Duration>,
    /// Reads of posts that everybody can read which were not answered with them.
    pub(crate) failed: u64,
}

impl Paced {
    /// Reads for so long.
    pub(crate) async fn read(&self, duration: Duration) -> anyhow::Result<Seen> {
        let (began, next) = (Instant::now(), Arc::<AtomicU64>::default());
        let mut readers = JoinSet::new();
        for _ in 0..CLIENTS {
            let connection = Connection::open(self.to).await?;
            readers.spawn(self.clone().go_on(connection, began, duration, Arc::clone(&next)));
        }
        let mut seen = Seen::default();
        while let Some(reader) = readers.join_next().await {
            let Seen { took, failed } = reader??;
            seen.took.extend(took);
            seen.failed += failed;
        }
        Ok(seen)
    }

    async fn go_on(
        self,
        mut connection: Connection,
        began: Instant,
        duration: Duration,
        next: Arc<AtomicU64>,
    ) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64(number as f64 / self.per_second as f64);
            if due >= duration {
                return Ok(seen);
            }
            tokio::time::sleep_until((began + due).into()).await;
            let rank = self.popularity.pick(&mut Random::new(number));
            let slug = slug(self.posts.get(rank).copied().unwrap_or_default());
            let mut request = Request::get(self.to, &format!("/posts/{slug}"));
            let answer = connection.ask(request.next()).await?;
            let named = format!(r#""slug":"{slug}""#);
            let shows = answer.body.windows(named.len()).any(|part| part == named.as_bytes());
            if answer.status != 200 || !shows {
                seen.failed += 1;
            }
            seen.took.push(began.elapsed() - due);
        }
    }
}

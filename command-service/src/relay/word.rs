//! Word between processes that something was recorded, so that whoever carries the log need not find it by
//! looking.
//!
//! It travels by `NOTIFY`, outside the append: inside, it would cost two thirds of the throughput. Word may be
//! lost; the relay looks by itself often enough.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::Notify;

/// The channel, of which each database has its own.
const CHANNEL: &str = "inkstream_recorded";
/// At most so often is word sent; what is recorded in between goes with the next.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// No sending of word and no connecting takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(3);
/// After so long a silence the connection is made anew, for it may have been cut without our hearing of it.
const MAX_SILENCE: Duration = Duration::from_secs(60);

/// Tells all who listen that something was recorded.
pub(super) async fn send(pool: &PgPool) {
    let sent = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(pool);
    let sent = tokio::time::timeout(TIME_LIMIT, sent).await.context("took too long");
    match sent.and_then(|sent| Ok(sent?)) {
        Ok(_) => metrics::counter!("relay_words_total", "way" => "sent").increment(1),
        Err(error) => tracing::debug!("Others will have to look for what was recorded: {error:#}"),
    }
}

/// Rings `recorded` whenever another process has recorded something; until it is dropped.
pub(super) async fn listen(pool: &PgPool, recorded: &Arc<Notify>) -> Infallible {
    loop {
        let Err(error) = listen_once(pool, recorded).await;
        tracing::debug!("Not hearing for a moment what others record: {error:#}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn listen_once(pool: &PgPool, recorded: &Arc<Notify>) -> anyhow::Result<Infallible> {
    // A connection of its own, and not of the pool: one that is given up may take long to end.
    let address = (*pool.connect_options()).clone();
    let own = PgPoolOptions::new().max_connections(1).connect_lazy_with(address);
    let connect = async {
        let mut listener = PgListener::connect_with(&own).await?;
        listener.listen(CHANNEL).await?;
        anyhow::Ok(listener)
    };
    let connected = tokio::time::timeout(TIME_LIMIT, connect).await;
    let mut listener = connected.context("took too long")?.context("while connecting")?;
    loop {
        // Word may have been sent before we listened.
        recorded.notify_one();
        let heard = tokio::time::timeout(MAX_SILENCE, listener.try_recv()).await;
        match heard.context("a long silence")?? {
            Some(_) => metrics::counter!("relay_words_total", "way" => "heard").increment(1),
            None => tracing::debug!("Hearing again what others record"),
        }
    }
}

//! The log page by page: what a rebuild and a verification read, from one end of the ids to the other.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use domain::{Position, PostId, RawEvent, Recorded};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::EventLog;

/// No row of a scan keeps us waiting longer.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The pages whose ids lie above one id and not above another; an end that is missing is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdRange {
    pub above: Option<String>,
    pub up_to: Option<String>,
}

impl EventLog {
    /// Divides all ids into so many ranges, or fewer, which hold about as many events each, as of a position.
    /// Asked again it gives the same ranges: what stands at a position never changes.
    pub async fn ranges(&self, head: Position, parts: u32) -> anyhow::Result<Vec<IdRange>> {
        // Positions have no holes, so the ids at positions equally far apart are a fair sample, wherever
        // among the ids the long pages may lie.
        let parts = i64::from(parts.max(1));
        let sample: Vec<i64> =
            (1..parts).map(|part| head.to_i64() / parts * part).filter(|at| *at > 0).collect();
        let sampled =
            sqlx::query_scalar("SELECT aggregate_id FROM events WHERE position = ANY ($1)")
                .bind(sample)
                .fetch_all(&self.pool);
        let sampled = tokio::time::timeout(TIME_LIMIT, sampled).await;
        let sampled = sampled.context("took too long").and_then(|ids| ids.map_err(Into::into));
        let mut bounds: Vec<String> = sampled.context("dividing the ids")?;
        bounds.sort_unstable();
        bounds.dedup();
        let ends = bounds.iter().cloned().map(Some).chain([None]);
        let starts = [None].into_iter().chain(bounds.iter().cloned().map(Some));
        Ok(starts.zip(ends).map(|(above, up_to)| IdRange { above, up_to }).collect())
    }

    /// The events of these pages at or below a position: page by page, each in the order of its sequence.
    /// Postgres waits while nobody takes them, so they are never all in memory.
    pub fn scan(&self, range: &IdRange, head: Position) -> Scan<'_> {
        // No trace context: taking it out of each event's metadata would cost a tenth of the time.
        const SQL: &str =
            "SELECT position, event_id, aggregate_id, sequence, recorded_at, event_type,
                    event_version, payload::text
             FROM events
             WHERE aggregate_type = 'post' AND aggregate_id > $1 AND aggregate_id <= $2
                   AND position <= $3
             ORDER BY aggregate_type, aggregate_id, sequence";
        let rows = sqlx::query(SQL)
            .bind(range.above.clone().unwrap_or_default())
            .bind(range.up_to.clone().unwrap_or_else(|| char::MAX.to_string()))
            .bind(head.to_i64())
            .fetch(&self.pool);
        Scan { rows }
    }

    /// At most so many pages, picked at random: long ones more often than short ones.
    pub async fn random_pages(&self, count: u32) -> anyhow::Result<Vec<PostId>> {
        let picked = sqlx::query_scalar(
            "SELECT DISTINCT aggregate_id
             FROM events
             WHERE aggregate_type = 'post' AND position = ANY (ARRAY(
                 SELECT 1 + floor(random() * (SELECT coalesce(max(position), 0) FROM events))::bigint
                 FROM generate_series(1, $1)
             ))",
        )
        .bind(i32::try_from(count).unwrap_or(i32::MAX))
        .fetch_all(&self.pool);
        parse(tokio::time::timeout(TIME_LIMIT, picked).await, "picking pages")
    }

    /// Which of these pages have any event.
    pub async fn known_pages(&self, ids: &[PostId]) -> anyhow::Result<Vec<PostId>> {
        let ids: Vec<String> = ids.iter().map(PostId::to_string).collect();
        let known = sqlx::query_scalar(
            "SELECT aggregate_id
             FROM events
             WHERE aggregate_type = 'post' AND aggregate_id = ANY ($1) AND sequence = 1",
        )
        .bind(&ids)
        .fetch_all(&self.pool);
        parse(tokio::time::timeout(TIME_LIMIT, known).await, "looking for pages")
    }
}

fn parse(
    ids: Result<Result<Vec<String>, sqlx::Error>, tokio::time::error::Elapsed>,
    doing: &'static str,
) -> anyhow::Result<Vec<PostId>> {
    let ids =
        ids.context("took too long").and_then(|ids| ids.map_err(Into::into)).context(doing)?;
    Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
}

/// Events that come one after another.
pub struct Scan<'a> {
    rows: BoxStream<'a, Result<PgRow, sqlx::Error>>,
}

impl Scan<'_> {
    pub async fn next(&mut self) -> anyhow::Result<Option<Recorded<RawEvent>>> {
        let row = tokio::time::timeout(TIME_LIMIT, self.rows.try_next()).await;
        let row = row.context("took too long").and_then(|row| row.map_err(Into::into));
        row.context("reading pages from the log")?
            .map(|row| recorded(&row).context("reading pages from the log"))
            .transpose()
    }
}

impl fmt::Debug for Scan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").finish_non_exhaustive()
    }
}

/// By number: looked up by name, the columns of a million rows take seconds.
fn recorded(row: &PgRow) -> Result<Recorded<RawEvent>, sqlx::Error> {
    Ok(Recorded {
        position: Position::from_i64(row.try_get(0)?),
        event_id: row.try_get(1)?,
        stream_id: row.try_get(2)?,
        sequence: row.try_get::<i64, _>(3)?.unsigned_abs(),
        recorded_at: row.try_get(4)?,
        payload: RawEvent {
            event_type: row.try_get(5)?,
            event_version: row.try_get(6)?,
            json: row.try_get(7)?,
            traceparent: None,
        },
    })
}

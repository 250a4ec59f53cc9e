//! The log itself.

use std::time::Duration;

use anyhow::Context;
use domain::{Claim, Partition, Partitions, Point, Position, PostId, RawEvent, Recorded, Slug};
use futures::{Stream, TryStreamExt};
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use uuid::Uuid;

use crate::Generations;

/// No read takes longer; one that would is given up, and its caller tries again or answers without it.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Maximum size of the payloads that one read of a range returns, in bytes. One event more than that may come.
pub(crate) const MAX_BYTES: u32 = 4 * 1024 * 1024;

/// Reads the log of events.
#[derive(Debug, Clone)]
pub struct EventLog {
    pub(crate) pool: PgPool,
    partitions: Partitions,
}

/// The whole history of some pages, as of one moment.
#[derive(Debug)]
pub struct Pages {
    /// The head of the whole log in the snapshot of this read: no event of these pages at or below it is
    /// missing.
    pub as_of: Position,
    /// Page by page, each in the order of its sequence.
    pub events: Vec<Recorded<RawEvent>>,
}

/// An event by what it touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    pub position: Position,
    pub stream_id: String,
}

/// What every read of events selects; [`recorded`] reads it back.
const COLUMNS: &str = "events.position, partition, event_id, aggregate_id, sequence, recorded_at, event_type,
                       event_version, payload::text AS payload, metadata ->> 'traceparent' AS traceparent";

impl EventLog {
    pub fn new(pool: PgPool, partitions: Partitions) -> Self {
        Self { pool, partitions }
    }

    /// The generations of the views that are made from it.
    pub fn generations(&self) -> Generations {
        Generations::new(self.pool.clone())
    }

    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// The position of the last event.
    pub async fn head(&self) -> anyhow::Result<Position> {
        let head: Option<i64> = in_time(
            "reading the head of the log",
            sqlx::query_scalar("SELECT max(position) FROM events").fetch_one(&self.pool),
        )
        .await?;
        Ok(Position::from_i64(head.unwrap_or(0)))
    }

    /// The store's present life.
    pub async fn incarnation(&self) -> anyhow::Result<u32> {
        let incarnation: i32 = in_time(
            "reading the incarnation",
            sqlx::query_scalar("SELECT incarnation FROM store").fetch_one(&self.pool),
        )
        .await?;
        Ok(incarnation.unsigned_abs())
    }

    /// The last event of every partition, partition by partition.
    pub async fn heads(&self) -> anyhow::Result<Vec<Point>> {
        self.points_at(Position(u64::MAX)).await
    }

    /// The last event of every partition at or below a position, partition by partition.
    pub async fn points_at(&self, position: Position) -> anyhow::Result<Vec<Point>> {
        let rows: Vec<(Option<i64>, Option<Uuid>)> = in_time(
            "reading the heads of the partitions",
            sqlx::query_as(
                "SELECT last.position, last.event_id
                 FROM generate_series(0, $1 - 1) AS each (partition)
                 LEFT JOIN LATERAL (
                     SELECT position, event_id FROM events
                     WHERE events.partition = each.partition AND position <= $2
                     ORDER BY position DESC
                     LIMIT 1
                 ) AS last ON true
                 ORDER BY each.partition",
            )
            .bind(i32::from(self.partitions.count()))
            .bind(position.to_i64())
            .fetch_all(&self.pool),
        )
        .await?;
        let point = |(position, event_id): (Option<i64>, Option<Uuid>)| match (position, event_id) {
            (Some(position), Some(event_id)) => {
                Point { position: Position::from_i64(position), event_id }
            }
            _ => Point::START,
        };
        Ok(rows.into_iter().map(point).collect())
    }

    /// The events above a position, in order, with their partitions: at most `limit`, and fewer when they
    /// are long. None means that there are none.
    pub async fn read_after(
        &self,
        position: Position,
        limit: u32,
    ) -> anyhow::Result<Vec<(Partition, Recorded<RawEvent>)>> {
        let sql = bounded("position > $1");
        let rows = sqlx::query(&sql)
            .bind(position.to_i64())
            .bind(i64::from(limit))
            .bind(i64::from(MAX_BYTES))
            .fetch_all(&self.pool);
        let rows = in_time("reading the log", rows).await?;
        Ok(rows.iter().map(recorded).collect::<Result<_, _>>()?)
    }

    /// The same for one partition.
    pub async fn read_partition_after(
        &self,
        partition: Partition,
        position: Position,
        limit: u32,
    ) -> anyhow::Result<Vec<Recorded<RawEvent>>> {
        let sql = bounded("partition = $4 AND position > $1");
        let rows = sqlx::query(&sql)
            .bind(position.to_i64())
            .bind(i64::from(limit))
            .bind(i64::from(MAX_BYTES))
            .bind(i32::from(partition.0))
            .fetch_all(&self.pool);
        let rows = in_time("reading a partition of the log", rows).await?;
        let events = rows.iter().map(|row| recorded(row).map(|(_, event)| event));
        Ok(events.collect::<Result<_, _>>()?)
    }

    /// How many events of a partition stand above one position and not above another; counted up to `most`.
    pub async fn count_between(
        &self,
        partition: Partition,
        above: Position,
        to: Position,
        most: u32,
    ) -> anyhow::Result<u64> {
        let count: i64 = in_time(
            "counting events",
            sqlx::query_scalar(
                "SELECT count(*) FROM (
                     SELECT FROM events
                     WHERE partition = $1 AND position > $2 AND position <= $3
                     LIMIT $4
                 ) AS between_them",
            )
            .bind(i32::from(partition.0))
            .bind(above.to_i64())
            .bind(to.to_i64())
            .bind(i64::from(most))
            .fetch_one(&self.pool),
        )
        .await?;
        Ok(count.unsigned_abs())
    }

    /// What the latest events of a partition below a position touched, newest first.
    pub async fn touched_before(
        &self,
        partition: Partition,
        position: Position,
        limit: u32,
    ) -> anyhow::Result<Vec<Touched>> {
        let rows: Vec<(i64, String)> = in_time(
            "reading a partition backwards",
            sqlx::query_as(
                "SELECT position, aggregate_id
                 FROM events
                 WHERE partition = $1 AND position < $2
                 ORDER BY position DESC
                 LIMIT $3",
            )
            .bind(i32::from(partition.0))
            .bind(position.to_i64())
            .bind(i64::from(limit))
            .fetch_all(&self.pool),
        )
        .await?;
        let touched =
            |(position, stream_id)| Touched { position: Position::from_i64(position), stream_id };
        Ok(rows.into_iter().map(touched).collect())
    }

    /// All events of these pages, in one snapshot with the head of the log.
    pub async fn pages(&self, ids: &[PostId]) -> anyhow::Result<Pages> {
        let ids: Vec<String> = ids.iter().map(PostId::to_string).collect();
        // Joined from the head, so that the head comes back even where there is no such page.
        let sql = format!(
            "SELECT head.position AS head, {COLUMNS}
             FROM (SELECT coalesce(max(position), 0) AS position FROM events) AS head
             LEFT JOIN events ON aggregate_type = 'post' AND aggregate_id = ANY ($1)
             ORDER BY aggregate_id, sequence"
        );
        let rows = sqlx::query(&sql).bind(&ids).fetch(&self.pool);
        in_time("reading whole pages", all_of(rows)).await
    }

    /// Returns how many of these pages, in this order, have payloads of at most [`MAX_BYTES`] together; at least
    /// one. It adds up sizes and reads no payload.
    pub(crate) async fn count_of_short(&self, ids: &[PostId]) -> anyhow::Result<usize> {
        if ids.len() <= 1 {
            return Ok(ids.len());
        }
        let ids: Vec<String> = ids.iter().map(PostId::to_string).collect();
        let count: i64 = in_time(
            "adding up the sizes of pages",
            sqlx::query_scalar(
                "SELECT count(*)
                 FROM (
                     SELECT sum(coalesce(page.bytes, 0)) OVER (ORDER BY given.number) AS bytes
                     FROM unnest($1) WITH ORDINALITY AS given (id, number)
                     LEFT JOIN LATERAL (
                         SELECT sum(payload_bytes) AS bytes FROM events
                         WHERE aggregate_type = 'post' AND aggregate_id = given.id
                     ) AS page ON true
                 ) AS summed
                 WHERE bytes <= $2",
            )
            .bind(&ids)
            .bind(i64::from(MAX_BYTES))
            .fetch_one(&self.pool),
        )
        .await?;
        Ok(usize::try_from(count).unwrap_or_default().max(1))
    }

    /// The event at a position, as it is stored.
    pub async fn event_at(&self, position: Position) -> anyhow::Result<Option<Recorded<RawEvent>>> {
        let sql = format!("SELECT {COLUMNS} FROM events WHERE position = $1");
        let read = sqlx::query(&sql).bind(position.to_i64()).fetch_optional(&self.pool);
        let row = in_time("reading an event", read).await?;
        Ok(row.map(|row| recorded(&row)).transpose()?.map(|(_, event)| event))
    }

    /// Which post a slug names, or named: that never changes.
    pub async fn claim_of(&self, slug: &Slug) -> anyhow::Result<Option<Claim>> {
        // The post has claimed it by its last event at the latest.
        let found: Option<(String, i64)> = in_time(
            "looking up a slug",
            sqlx::query_as(
                "SELECT post_id, last.position
                 FROM slugs
                 CROSS JOIN LATERAL (
                     SELECT position FROM events
                     WHERE aggregate_type = 'post' AND aggregate_id = slugs.post_id
                     ORDER BY sequence DESC
                     LIMIT 1
                 ) AS last
                 WHERE slug = $1",
            )
            .bind(slug.as_str())
            .fetch_optional(&self.pool),
        )
        .await?;
        let claim = |(id, position): (String, i64)| {
            let post_id = id.parse().context("the table of slugs names no post")?;
            Ok(Claim { post_id, position: Position::from_i64(position) })
        };
        found.map(claim).transpose()
    }
}

pub(crate) async fn in_time<T>(
    doing: &'static str,
    read: impl Future<Output = Result<T, sqlx::Error>>,
) -> anyhow::Result<T> {
    let read = tokio::time::timeout(TIME_LIMIT, read).await;
    read.context("took too long").and_then(|read| read.map_err(Into::into)).context(doing)
}

/// Query of the events that meet a condition, in order: at most `$2`, and no more once the payloads before make up
/// `$3` bytes. Left running, a longer answer would have to be read to its end, or its connection closed.
fn bounded(condition: &str) -> String {
    format!(
        "SELECT {COLUMNS}
         FROM (
             SELECT *, sum(payload_bytes) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING)
                       - payload_bytes AS bytes_before
             FROM (SELECT * FROM events WHERE {condition} ORDER BY position LIMIT $2) AS next
         ) AS events
         WHERE bytes_before < $3
         ORDER BY position"
    )
}

async fn all_of(
    mut rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Unpin,
) -> Result<Pages, sqlx::Error> {
    let mut pages = Pages { as_of: Position::ZERO, events: Vec::new() };
    while let Some(row) = rows.try_next().await? {
        pages.as_of = Position::from_i64(row.try_get("head")?);
        if row.try_get::<Option<i64>, _>("position")?.is_some() {
            pages.events.push(recorded(&row)?.1);
        }
    }
    Ok(pages)
}

fn recorded(row: &PgRow) -> Result<(Partition, Recorded<RawEvent>), sqlx::Error> {
    let partition: i32 = row.try_get("partition")?;
    let sequence: i64 = row.try_get("sequence")?;
    let event = Recorded {
        position: Position::from_i64(row.try_get("position")?),
        event_id: row.try_get("event_id")?,
        stream_id: row.try_get("aggregate_id")?,
        sequence: sequence.unsigned_abs(),
        recorded_at: row.try_get("recorded_at")?,
        payload: RawEvent {
            event_type: row.try_get("event_type")?,
            event_version: row.try_get("event_version")?,
            json: row.try_get("payload")?,
            traceparent: row.try_get("traceparent")?,
        },
    };
    // The column was filled from a `Partition`.
    Ok((Partition(u16::try_from(partition).unwrap_or(u16::MAX)), event))
}

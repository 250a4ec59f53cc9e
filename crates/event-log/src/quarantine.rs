//! The record of pages that were set aside, each by an event that cannot be folded. Nobody else writes its
//! table.

use chrono::{DateTime, Utc};
use domain::Position;
use sqlx::Row;

use crate::Unreadable;
use crate::log::{EventLog, in_time};

/// What is known of an event that set its page aside.
#[derive(Debug, Clone)]
pub struct Entry {
    pub position: Position,
    /// The id of the aggregate whose stream it belongs to: of a post, unless it was not written by us.
    pub stream_id: String,
    pub event_type: String,
    pub event_version: String,
    pub reason: String,
    pub noted_at: DateTime<Utc>,
    pub state: State,
}

/// What is to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its page waits for a program that can read it.
    Quarantined,
    /// It is left out for good.
    Discarded,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Quarantined => "quarantined",
            Self::Discarded => "discarded",
        })
    }
}

impl EventLog {
    /// Puts events on record because of which their pages are set aside; those that are on record already
    /// stay as they are. Answers how many have not been there.
    pub async fn quarantine<'a>(
        &self,
        events: impl IntoIterator<Item = &'a Unreadable>,
    ) -> anyhow::Result<u64> {
        let (positions, reasons): (Vec<i64>, Vec<String>) =
            events.into_iter().map(|event| (event.position.to_i64(), event.reason.clone())).unzip();
        if positions.is_empty() {
            return Ok(0);
        }
        let added = in_time(
            "putting events into quarantine",
            sqlx::query(
                "INSERT INTO quarantine (position, partition, aggregate_type, aggregate_id, sequence,
                                         event_type, event_version, reason)
                 SELECT position, partition, aggregate_type, aggregate_id, sequence,
                        event_type, event_version, given.reason
                 FROM unnest($1::bigint[], $2::text[]) AS given (at, reason)
                 JOIN events ON position = given.at
                 ON CONFLICT DO NOTHING",
            )
            .bind(&positions)
            .bind(&reasons)
            .execute(&self.pool),
        )
        .await?;
        Ok(added.rows_affected())
    }

    /// Which of these events are left out for good. Whoever cannot read an event asks this before saying so.
    pub async fn discarded_among(&self, positions: &[Position]) -> anyhow::Result<Vec<Position>> {
        self.on_record_as(State::Discarded, positions).await
    }

    /// Which of these events are on record as those because of which pages are set aside.
    pub async fn quarantined_among(&self, positions: &[Position]) -> anyhow::Result<Vec<Position>> {
        self.on_record_as(State::Quarantined, positions).await
    }

    /// Returns `true` if an event is left out permanently.
    pub async fn is_discarded(&self, position: Position) -> anyhow::Result<bool> {
        Ok(!self.discarded_among(&[position]).await?.is_empty())
    }

    async fn on_record_as(
        &self,
        state: State,
        positions: &[Position],
    ) -> anyhow::Result<Vec<Position>> {
        let positions: Vec<i64> = positions.iter().map(|position| position.to_i64()).collect();
        let found: Vec<i64> = in_time(
            "looking for events on record",
            sqlx::query_scalar(
                "SELECT position
                 FROM quarantine
                 WHERE position = ANY ($1) AND state = $2",
            )
            .bind(&positions)
            .bind(state.to_string())
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(found.into_iter().map(Position::from_i64).collect())
    }

    /// How many pages are set aside.
    pub async fn count_quarantined(&self) -> anyhow::Result<u64> {
        let count: i64 = in_time(
            "counting pages in quarantine",
            sqlx::query_scalar(
                "SELECT count(DISTINCT aggregate_id) FROM quarantine WHERE state = 'quarantined'",
            )
            .fetch_one(&self.pool),
        )
        .await?;
        Ok(count.unsigned_abs())
    }

    /// All that is on record, in the order of the log; so many at most.
    pub async fn on_record(&self, limit: u32) -> anyhow::Result<Vec<Entry>> {
        let rows = in_time(
            "reading the quarantine",
            sqlx::query(
                "SELECT position, aggregate_id, event_type, event_version, reason, noted_at,
                        state = 'discarded' AS discarded
                 FROM quarantine
                 ORDER BY state DESC, position
                 LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&self.pool),
        )
        .await?;
        let entry = |row: &sqlx::postgres::PgRow| {
            Ok(Entry {
                position: Position::from_i64(row.try_get("position")?),
                stream_id: row.try_get("aggregate_id")?,
                event_type: row.try_get("event_type")?,
                event_version: row.try_get("event_version")?,
                reason: row.try_get("reason")?,
                noted_at: row.try_get("noted_at")?,
                state: match row.try_get("discarded")? {
                    true => State::Discarded,
                    false => State::Quarantined,
                },
            })
        };
        rows.iter().map(entry).collect()
    }

    /// Leaves an event out for good. Answers the id of its stream; nothing if it is not on record.
    pub async fn discard(&self, position: Position) -> anyhow::Result<Option<String>> {
        in_time(
            "discarding an event",
            sqlx::query_scalar(
                "UPDATE quarantine
                 SET state = 'discarded', discarded_at = coalesce(discarded_at, now())
                 WHERE position = $1
                 RETURNING aggregate_id",
            )
            .bind(position.to_i64())
            .fetch_optional(&self.pool),
        )
        .await
    }

    /// Takes off the record the events of a stream below a position, which can be read again. What is
    /// discarded stays.
    pub async fn release(&self, stream_id: &str, below: Position) -> anyhow::Result<()> {
        in_time(
            "releasing a page",
            sqlx::query(
                "DELETE FROM quarantine
                 WHERE aggregate_id = $1 AND position < $2 AND state = 'quarantined'",
            )
            .bind(stream_id)
            .bind(below.to_i64())
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }
}

//! The table of the generations of the views: which there are, who builds one, and which of them readers are
//! answered from. What is in them is the read model's.

mod leases;
mod switching;

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::Position;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};

/// No question takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct Generations {
    pool: PgPool,
}

/// One complete set of views.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    pub number: u32,
    pub view_version: u32,
    pub state: GenerationState,
    /// The store's life in which it was begun.
    pub incarnation: u32,
    /// As of which position it is, or was, built.
    pub head: Position,
    /// Into how many parts the log is divided for that.
    pub parts: u32,
    pub parts_done: u32,
    pub events_done: u64,
    pub created_at: DateTime<Utc>,
    /// Which of all switches made it active last; zero if none has.
    pub turn: u64,
    /// Who builds or removes it, unless their time is over.
    pub holder: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationState {
    /// Being folded as of a position. Nobody but its builder writes it.
    Building,
    /// Complete, and kept up to date.
    Following,
    /// The same, and what readers are answered from.
    Active,
    /// Was active, and is kept up to date for a way back.
    Kept,
    /// Written by nobody, about to be removed.
    Abandoned,
}

/// The right to build or remove a generation, for as long as nobody else has taken it.
#[derive(Debug, Clone)]
pub struct GenerationLease {
    pub number: u32,
    token: i64,
    duration: Duration,
}

impl GenerationState {
    /// In the order in which one goes through them.
    pub const ALL: [Self; 5] =
        [Self::Building, Self::Following, Self::Active, Self::Kept, Self::Abandoned];

    /// Whether every projector of its version writes it.
    pub fn is_followed(self) -> bool {
        match self {
            Self::Following | Self::Active | Self::Kept => true,
            Self::Building | Self::Abandoned => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Following => "following",
            Self::Active => "active",
            Self::Kept => "kept",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for GenerationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Generations {
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// All that there are, in the order of their numbers.
    pub async fn all(&self) -> anyhow::Result<Vec<Generation>> {
        let rows = in_time(
            "reading the generations",
            sqlx::query(
                "SELECT number, view_version, state, incarnation, head, parts, parts_done, events_done,
                        created_at, coalesce(turn, 0) AS turn,
                        CASE WHEN expires_at > clock_timestamp() THEN holder END AS holder
                 FROM generations
                 ORDER BY number",
            )
            .fetch_all(&self.pool),
        )
        .await?;
        rows.iter().map(generation).collect::<Result<_, _>>().context("reading the generations")
    }

    /// The one with this number, if there is one.
    pub async fn find(&self, number: u32) -> anyhow::Result<Option<Generation>> {
        let mut all = self.all().await?.into_iter();
        Ok(all.find(|generation| generation.number == number))
    }

    /// The one that readers of a version of the views are answered from, and the number of the switch to it.
    pub async fn active(&self, view_version: u32) -> anyhow::Result<Option<(u32, u64)>> {
        let active: Option<(i32, i64)> = in_time(
            "reading the active generation",
            sqlx::query_as(
                "SELECT number, turn FROM generations WHERE view_version = $1 AND state = 'active'",
            )
            .bind(signed(view_version))
            .fetch_optional(&self.pool),
        )
        .await?;
        Ok(active.map(|(number, turn)| (number.unsigned_abs(), turn.unsigned_abs())))
    }
}

fn generation(row: &PgRow) -> Result<Generation, sqlx::Error> {
    let number = |name| Ok::<u32, sqlx::Error>(row.try_get::<i32, _>(name)?.unsigned_abs());
    let state: String = row.try_get("state")?;
    let state = GenerationState::ALL.into_iter().find(|known| known.name() == state);
    Ok(Generation {
        number: number("number")?,
        view_version: number("view_version")?,
        // One that this program does not know is none of its business.
        state: state.unwrap_or(GenerationState::Abandoned),
        incarnation: number("incarnation")?,
        head: Position::from_i64(row.try_get("head")?),
        parts: number("parts")?,
        parts_done: number("parts_done")?,
        events_done: row.try_get::<i64, _>("events_done")?.unsigned_abs(),
        created_at: row.try_get("created_at")?,
        turn: row.try_get::<i64, _>("turn")?.unsigned_abs(),
        holder: row.try_get("holder")?,
    })
}

/// As Postgres' `integer`, which has no unsigned kin.
fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

async fn in_time<T>(
    doing: &'static str,
    question: impl Future<Output = Result<T, sqlx::Error>>,
) -> anyhow::Result<T> {
    let answer = tokio::time::timeout(TIME_LIMIT, question).await;
    answer.context("took too long").and_then(|answer| answer.map_err(Into::into)).context(doing)
}

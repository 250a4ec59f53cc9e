//! The table of the generations of the views: which there are, who builds one, and which of them readers are
//! answered from. What is in them is the read model's.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use domain::Position;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row};

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

    /// Where there is no generation at all, there is nothing that a reader could be answered from meanwhile: the
    /// first is active from the start, and filled like one that was lost.
    pub async fn begin_first(&self, view_version: u32) -> anyhow::Result<()> {
        let begin = self.begin_first_in_one_step(view_version);
        in_time("beginning the first generation", begin).await
    }

    async fn begin_first_in_one_step(&self, view_version: u32) -> Result<(), sqlx::Error> {
        let mut step = self.pool.begin().await?;
        // Of two that begin it at once, the one that comes too late might otherwise have taken the first number.
        lock(&mut step).await?;
        sqlx::query(
            "INSERT INTO generations (view_version, state, incarnation, head, parts, turn, switched_at)
             SELECT $1, 'active', incarnation, 0, 0, 1, clock_timestamp()
             FROM store
             WHERE NOT EXISTS (SELECT FROM generations)",
        )
        .bind(signed(view_version))
        .execute(&mut *step)
        .await?;
        step.commit().await
    }

    /// Begins a generation. `None`: another of this version is growing already, or, where only the first is
    /// wanted, readers of this version have one.
    pub async fn begin(
        &self,
        view_version: u32,
        only_first: bool,
        (head, parts): (Position, u32),
        holder: &str,
        duration: Duration,
    ) -> anyhow::Result<Option<GenerationLease>> {
        let begun: Option<(i32, i64)> = in_time(
            "beginning a generation",
            sqlx::query_as(
                "INSERT INTO generations
                     (view_version, state, incarnation, head, parts, token, holder, expires_at)
                 SELECT $1, 'building', incarnation, $2, $3, 1, $4, clock_timestamp() + $5
                 FROM store
                 WHERE NOT $6 OR NOT EXISTS (
                     SELECT FROM generations WHERE view_version = $1 AND state = 'active'
                 )
                 ON CONFLICT DO NOTHING
                 RETURNING number, token",
            )
            .bind(signed(view_version))
            .bind(head.to_i64())
            .bind(signed(parts))
            .bind(holder)
            .bind(duration)
            .bind(only_first)
            .fetch_optional(&self.pool),
        )
        .await?;
        Ok(begun.map(|(number, token)| GenerationLease {
            number: number.unsigned_abs(),
            token,
            duration,
        }))
    }

    /// Takes the right to go on with a generation, if nobody has it. One that has been switched to meanwhile is
    /// nobody's to go on with.
    pub async fn take(
        &self,
        number: u32,
        holder: &str,
        duration: Duration,
    ) -> anyhow::Result<Option<GenerationLease>> {
        let growing = [GenerationState::Building, GenerationState::Following];
        self.take_one_of(&growing, number, holder, duration).await
    }

    async fn take_one_of(
        &self,
        states: &[GenerationState],
        number: u32,
        holder: &str,
        duration: Duration,
    ) -> anyhow::Result<Option<GenerationLease>> {
        let token: Option<i64> = in_time(
            "taking over a generation",
            sqlx::query_scalar(
                "UPDATE generations
                 SET token = token + 1, holder = $2, expires_at = clock_timestamp() + $3
                 WHERE number = $1 AND expires_at < clock_timestamp() AND state = ANY($4)
                 RETURNING token",
            )
            .bind(signed(number))
            .bind(holder)
            .bind(duration)
            .bind(states.iter().map(|state| state.name()).collect::<Vec<_>>())
            .fetch_optional(&self.pool),
        )
        .await?;
        Ok(token.map(|token| GenerationLease { number, token, duration }))
    }

    /// Keeps the right, and tells how many parts and events are done, if there is anything to tell. `false`: it is
    /// somebody else's by now.
    pub async fn renew(
        &self,
        lease: &GenerationLease,
        done: Option<(u32, u64)>,
    ) -> anyhow::Result<bool> {
        let renewed = in_time(
            "renewing the lease of a generation",
            sqlx::query(
                "UPDATE generations
                 SET expires_at = clock_timestamp() + $3, parts_done = coalesce($4, parts_done),
                     events_done = coalesce($5, events_done)
                 WHERE number = $1 AND token = $2",
            )
            .bind(signed(lease.number))
            .bind(lease.token)
            .bind(lease.duration)
            .bind(done.map(|(parts, _)| signed(parts)))
            .bind(done.map(|(_, events)| i64::try_from(events).unwrap_or(i64::MAX)))
            .execute(&self.pool),
        )
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Gives the right back, so that nobody need wait until it has run out.
    pub async fn give_back(&self, lease: &GenerationLease) -> anyhow::Result<()> {
        in_time(
            "giving back the lease of a generation",
            sqlx::query(
                "UPDATE generations SET expires_at = '-infinity' WHERE number = $1 AND token = $2",
            )
            .bind(signed(lease.number))
            .bind(lease.token)
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }

    /// From building to following. `false`: it is somebody else's by now, or is given up.
    pub async fn follow(&self, lease: &GenerationLease) -> anyhow::Result<bool> {
        let changed = in_time(
            "letting a generation follow",
            sqlx::query(
                "UPDATE generations
                 SET state = 'following', changed_at = clock_timestamp(),
                     parts_done = parts, events_done = head
                 WHERE number = $1 AND token = $2 AND state IN ('building', 'following')",
            )
            .bind(signed(lease.number))
            .bind(lease.token)
            .execute(&self.pool),
        )
        .await?;
        Ok(changed.rows_affected() == 1)
    }

    /// Makes a generation that has been built the active one of its version. The one before is kept, and so are
    /// `keep` in all; older ones are abandoned. `false`: it is somebody else's by now, or is given up.
    pub async fn switch(&self, lease: &GenerationLease, keep: u32) -> anyhow::Result<bool> {
        let switch = self.switch_in_one_step(lease.number, Some(lease.token), keep);
        in_time("switching to a generation", switch).await
    }

    /// The same with one that was active before. `false`: it is not kept any more.
    pub async fn switch_back(&self, number: u32, keep: u32) -> anyhow::Result<bool> {
        let switch = self.switch_in_one_step(number, None, keep);
        in_time("switching back to a generation", switch).await
    }

    async fn switch_in_one_step(
        &self,
        number: u32,
        builder: Option<i64>,
        keep: u32,
    ) -> Result<bool, sqlx::Error> {
        let mut step = self.pool.begin().await?;
        lock(&mut step).await?;
        // Of one that is kept nobody has the right.
        let version: Option<i32> = sqlx::query_scalar(
            "SELECT view_version FROM generations
             WHERE number = $1
                   AND CASE WHEN $2 IS NULL THEN state = 'kept'
                            ELSE state = 'following' AND token = $2 END",
        )
        .bind(signed(number))
        .bind(builder)
        .fetch_optional(&mut *step)
        .await?;
        let Some(version) = version else { return Ok(false) };
        sqlx::query(
            "UPDATE generations
             SET state = 'kept', changed_at = clock_timestamp()
             WHERE view_version = $1 AND state = 'active'",
        )
        .bind(version)
        .execute(&mut *step)
        .await?;
        sqlx::query(
            "UPDATE generations
             SET state = 'active', changed_at = clock_timestamp(), switched_at = clock_timestamp(),
                 turn = (SELECT coalesce(max(turn), 0) + 1 FROM generations),
                 expires_at = '-infinity'
             WHERE number = $1",
        )
        .bind(signed(number))
        .execute(&mut *step)
        .await?;
        sqlx::query(
            "UPDATE generations
             SET state = 'abandoned', changed_at = clock_timestamp()
             WHERE number IN (
                 SELECT number FROM generations
                 WHERE view_version = $1 AND state = 'kept'
                 ORDER BY turn DESC
                 OFFSET $2
             )",
        )
        .bind(version)
        .bind(i64::from(keep))
        .execute(&mut *step)
        .await?;
        step.commit().await?;
        Ok(true)
    }

    /// Gives up a generation that no reader is answered from. `false`: there is none such. One that is active for
    /// another version may be given up `though_active`, but never the one that was switched to last.
    pub async fn abandon(&self, number: u32, though_active: bool) -> anyhow::Result<bool> {
        // The token grows, so whoever builds it notices.
        let changed = in_time(
            "abandoning a generation",
            sqlx::query(
                "UPDATE generations
                 SET state = 'abandoned', changed_at = clock_timestamp(), token = token + 1,
                     expires_at = '-infinity'
                 WHERE number = $1 AND state <> 'abandoned'
                       AND (state <> 'active' OR
                            $2 AND turn < (SELECT max(turn) FROM generations))",
            )
            .bind(signed(number))
            .bind(though_active)
            .execute(&self.pool),
        )
        .await?;
        Ok(changed.rows_affected() == 1)
    }

    /// Takes the right to remove a generation that was abandoned so long ago that everybody has noticed.
    pub async fn take_abandoned(
        &self,
        noticed_after: Duration,
        holder: &str,
        duration: Duration,
    ) -> anyhow::Result<Option<GenerationLease>> {
        let number: Option<i32> = in_time(
            "looking for an abandoned generation",
            sqlx::query_scalar(
                "SELECT number FROM generations
                 WHERE state = 'abandoned' AND changed_at < clock_timestamp() - $1
                       AND expires_at < clock_timestamp()
                 ORDER BY number
                 LIMIT 1",
            )
            .bind(noticed_after)
            .fetch_optional(&self.pool),
        )
        .await?;
        let Some(number) = number else { return Ok(None) };
        let abandoned = [GenerationState::Abandoned];
        self.take_one_of(&abandoned, number.unsigned_abs(), holder, duration).await
    }

    /// Strikes a generation off the list, once nothing is left of it.
    pub async fn forget(&self, lease: &GenerationLease) -> anyhow::Result<()> {
        in_time(
            "forgetting a generation",
            sqlx::query(
                "DELETE FROM generations WHERE number = $1 AND token = $2 AND state = 'abandoned'",
            )
            .bind(signed(lease.number))
            .bind(lease.token)
            .execute(&self.pool),
        )
        .await?;
        Ok(())
    }
}

/// Lets one step at a time change which is active. Few rows, few switches: nothing is gained by letting two overlap.
async fn lock(step: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("LOCK TABLE generations IN SHARE ROW EXCLUSIVE MODE").execute(step).await?;
    Ok(())
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

//! Which generation readers are answered from, and what becomes of the others: each change is one step in Postgres.

use sqlx::PgConnection;

use super::{GenerationLease, Generations, in_time, signed};

impl Generations {
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
}

/// Lets one step at a time change which is active. Few rows, few switches: nothing is gained by letting two overlap.
async fn lock(step: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("LOCK TABLE generations IN SHARE ROW EXCLUSIVE MODE").execute(step).await?;
    Ok(())
}

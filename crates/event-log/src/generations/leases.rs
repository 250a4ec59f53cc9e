//! Who builds or removes a generation: one at a time, who keeps the right by renewing it.

use std::time::Duration;

use domain::Position;

use super::{GenerationLease, GenerationState, Generations, in_time, signed};

impl Generations {
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

    /// Keeps the right, and tells how many parts and events of a build are done, if there is anything to tell. `false`:
    /// it is somebody else's by now.
    pub async fn renew(
        &self,
        lease: &GenerationLease,
        done: Option<(u32, u64)>,
    ) -> anyhow::Result<bool> {
        let renewed = in_time(
            "renewing the lease of a generation",
            sqlx::query(
                "UPDATE generations
                 SET expires_at = clock_timestamp() + $3,
                     parts_done = CASE state WHEN 'building' THEN coalesce($4, parts_done) ELSE parts_done END,
                     events_done = CASE state WHEN 'building' THEN coalesce($5, events_done) ELSE events_done END
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

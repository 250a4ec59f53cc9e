//! `command-service new-incarnation`: what an operator says after Postgres came back from an earlier state.

use anyhow::Context as _;
use sqlx::{Connection as _, PgConnection};

use crate::config::IncarnationArgs;

/// Begins a new life of the store. Positions given from now on are told apart from those that were given
/// before and are lost; views made from these are made anew. Whoever carries the log to Kafka begins anew,
/// from the head at most. Running command services go on. Consistency tokens
/// from before are unknown from now on: their positions mean something else, and their key is replaced.
pub async fn begin_new(args: &IncarnationArgs) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(args.database_url.reveal())
        .await
        .context("while connecting to the database of INKSTREAM_DATABASE_URL")?;
    let mut transaction = connection.begin().await?;
    // The lock under which positions are given: no append sees half of this.
    sqlx::query("SELECT pg_advisory_xact_lock(6909547)").execute(&mut *transaction).await?;
    let incarnation: i32 = sqlx::query_scalar(
        "UPDATE store SET incarnation = incarnation + 1, token_key = DEFAULT RETURNING incarnation",
    )
    .fetch_one(&mut *transaction)
    .await
    .context("while raising the incarnation")?;
    sqlx::query(
        "UPDATE relay
         SET token = token + 1, expires_at = '-infinity',
             cursor = least(cursor, (SELECT coalesce(max(position), 0) FROM events))",
    )
    .execute(&mut *transaction)
    .await
    .context("while taking the lease away")?;
    transaction.commit().await?;
    tracing::info!(incarnation, "The store is in its incarnation {incarnation}");
    Ok(())
}

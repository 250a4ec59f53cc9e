//! `command-service migrate`: brings the database to where this version of the services expects it.

use anyhow::Context as _;
use domain::Partitions;
use sqlx::PgPool;

use crate::config::MigrateArgs;

const DEFAULT_PARTITIONS: u16 = 16;

/// Applies the migrations that are missing, and creates the store if there is none.
pub async fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let pool = PgPool::connect(args.database_url.reveal())
        .await
        .context("while connecting to the database")?;
    event_log::migrate(&pool).await?;
    // A store that is there keeps the number of its partitions. Asked for another by name, we say so.
    let present = event_log::open(&pool).await.ok().map(|store| store.partitions);
    let partitions = args.partitions.or(present).or(Partitions::new(DEFAULT_PARTITIONS));
    let partitions = partitions.context("a store has at least one partition")?;
    event_log::create(&pool, partitions).await?;
    tracing::info!("The store is up to date and has {} partitions", partitions.count());
    Ok(())
}

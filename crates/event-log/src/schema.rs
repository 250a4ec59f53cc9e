//! The tables: applied by hand before a deployment, checked by every process when it starts.

use std::fmt;
use std::time::{Duration, Instant};

use domain::Partitions;
use futures::future::BoxFuture;
use sqlx::error::BoxDynError;
use sqlx::migrate::{Migration, MigrationSource, MigrationType, Migrator};
use sqlx::{PgConnection, PgPool};

use crate::writable;

/// Timeout for one attempt to open the store.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts.
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(500);

/// Forward only. The code before and after each of them can run at the same time.
const MIGRATIONS: [(i64, &str, &str); 6] = [
    (1, "events", include_str!("../../../migrations/0001_events.sql")),
    (2, "idempotency keys", include_str!("../../../migrations/0002_idempotency_keys.sql")),
    (3, "append events", include_str!("../../../migrations/0003_append_events.sql")),
    (4, "quarantine", include_str!("../../../migrations/0004_quarantine.sql")),
    (5, "generations", include_str!("../../../migrations/0005_generations.sql")),
    (6, "aggregate snapshots", include_str!("../../../migrations/0006_aggregate_snapshots.sql")),
];

/// The settings of the store, which are the same for all its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    pub partitions: Partitions,
    pub incarnation: u32,
    pub token_key: TokenKey,
}

/// Key of the store's consistency tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenKey(pub [u8; 32]);

impl TokenKey {
    /// As Postgres holds it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, sqlx::Error> {
        let key = bytes.try_into().map(Self);
        key.map_err(|_| sqlx::Error::Decode("the token key has not 32 bytes".into()))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database has no store yet; run `command-service migrate` first")]
    NotMigrated,
    #[error(
        "the tables are at migration {found}, this program needs {needed}; run `command-service migrate`"
    )]
    Behind { found: i64, needed: i64 },
    #[error(
        "the store was created with {found} partitions, which is for good; {asked} were asked for"
    )]
    Partitions { found: u16, asked: u16 },
    #[error("a store has 1 to 1024 partitions, not {0}")]
    PartitionsOutOfRange(i32),
    #[error("while applying migrations")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("while reading the settings of the store")]
    Database(#[from] sqlx::Error),
}

/// Brings the tables up to date, and nothing else.
pub async fn migrate(pool: &PgPool) -> Result<(), StoreError> {
    Ok(Migrator::new(Embedded).await?.run(pool).await?)
}

/// The migrations as they were when this program was built: it needs no files beside it.
#[derive(Debug)]
struct Embedded;

impl MigrationSource<'static> for Embedded {
    fn resolve(self) -> BoxFuture<'static, Result<Vec<Migration>, BoxDynError>> {
        let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
            Migration::new(version, name.into(), MigrationType::Simple, sql.into(), false)
        };
        Box::pin(async move { Ok(MIGRATIONS.map(migration).into()) })
    }
}

/// Creates the store with so many partitions. If it is there already, it must have as many.
pub async fn create(pool: &PgPool, partitions: Partitions) -> Result<Store, StoreError> {
    sqlx::query("INSERT INTO store (partitions) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(i32::from(partitions.count()))
        .execute(pool)
        .await?;
    let store = read(&mut *pool.acquire().await?).await?;
    if store.partitions != partitions {
        let (found, asked) = (store.partitions.count(), partitions.count());
        return Err(StoreError::Partitions { found, asked });
    }
    Ok(store)
}

/// Reads the settings of the store, after seeing that its tables are recent enough for this program.
pub async fn open(pool: &PgPool) -> Result<Store, StoreError> {
    open_on(&mut *pool.acquire().await?).await
}

/// Opens the store like [`open`], but waits up to `patience` for a primary, and calls `waits` with
/// the reason. Fails at once with an error that time does not change: a wrong password, a
/// missing database or privilege.
pub async fn open_within(
    patience: Duration,
    pool: &PgPool,
    waits: impl Fn(&str),
) -> Result<Store, StoreError> {
    let deadline = Instant::now() + patience;
    // Not through the pool, which reports a timeout instead of the reason.
    let address = pool.connect_options();
    loop {
        let attempt = async { open_on(&mut writable::connect(&address).await?).await };
        let outcome = match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(StoreError::Database(sqlx::Error::Io(elapsed.into()))),
        };
        match outcome {
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                let why = with_cause(&error);
                waits(&why);
                tracing::warn!(error = why, "store not available yet");
                tokio::time::sleep(ATTEMPT_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

impl StoreError {
    /// Returns `true` if waiting may help: no server answers, it is starting or stopping, it has no
    /// resources left, or it is not the primary.
    fn is_transient(&self) -> bool {
        const TRANSIENT: [&str; 3] = ["08", "53", "57"];
        let Self::Database(error) = self else { return false };
        matches!(error, sqlx::Error::Io(_))
            || error
                .as_database_error()
                .and_then(|error| error.code())
                .is_some_and(|code| TRANSIENT.iter().any(|class| code.starts_with(class)))
    }
}

/// Formats an error and its cause in one line.
fn with_cause(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

async fn open_on(connection: &mut PgConnection) -> Result<Store, StoreError> {
    let needed = MIGRATIONS[MIGRATIONS.len() - 1].0;
    let found = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
        .fetch_one(&mut *connection)
        .await;
    match found {
        Ok(Some(found)) if found >= needed => read(connection).await,
        Ok(Some(found)) => Err(StoreError::Behind { found, needed }),
        Ok(None) => Err(StoreError::NotMigrated),
        Err(error) if is_undefined_table(&error) => Err(StoreError::NotMigrated),
        Err(error) => Err(error.into()),
    }
}

async fn read(connection: &mut PgConnection) -> Result<Store, StoreError> {
    let row: Option<(i32, i32, Vec<u8>)> =
        sqlx::query_as("SELECT partitions, incarnation, token_key FROM store")
            .fetch_optional(connection)
            .await?;
    let (partitions, incarnation, key) = row.ok_or(StoreError::NotMigrated)?;
    let token_key = TokenKey::from_bytes(&key)?;
    let partitions = u16::try_from(partitions)
        .ok()
        .and_then(Partitions::new)
        .ok_or(StoreError::PartitionsOutOfRange(partitions))?;
    Ok(Store { partitions, incarnation: incarnation.unsigned_abs(), token_key })
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "42P01")
}

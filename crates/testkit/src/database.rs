//! A database for each test, on the Postgres all tests share.

use sqlx::{Connection, Executor, PgConnection};

use crate::shared::{shared, unique_name};

/// An empty or freshly migrated database. It stays when the test ends: the whole server is thrown
/// away after the run.
#[derive(Debug, Clone)]
pub struct TestDatabase {
    name: String,
    url: String,
}

impl TestDatabase {
    /// An empty one.
    ///
    /// # Panics
    ///
    /// If Postgres refuses or does not answer.
    pub async fn create() -> Self {
        Self::copy_of("template0", &mut connect_as_superuser().await).await
    }

    /// A copy of the database `template`, which the first test of a run to need it makes by calling
    /// `migrate` with its address; all others wait for that and copy.
    ///
    /// A template stays as long as the server, so let its name change with what `migrate` does: a
    /// `make test-shell` may live longer than a migration's first draft.
    ///
    /// # Panics
    ///
    /// If `migrate` fails, or Postgres refuses or does not answer.
    pub async fn from_template<E: std::fmt::Debug>(
        template: &str,
        migrate: impl AsyncFnOnce(String) -> Result<(), E>,
    ) -> Self {
        let mut superuser = connect_as_superuser().await;
        if !exists(template, &mut superuser).await {
            make_template(template, migrate, &mut superuser).await;
        }
        Self::copy_of(template, &mut superuser).await
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Opens one connection to it, outside of any pool.
    ///
    /// # Panics
    ///
    /// If Postgres does not answer.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("could not connect to the test's database")
    }

    async fn copy_of(template: &str, superuser: &mut PgConnection) -> Self {
        let name = unique_name("test");
        let statement = format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\"");
        superuser.execute(statement.as_str()).await.expect("could not create a database");
        let url = shared().database_url(&name);
        Self { name, url }
    }
}

async fn make_template<E: std::fmt::Debug>(
    template: &str,
    migrate: impl AsyncFnOnce(String) -> Result<(), E>,
    superuser: &mut PgConnection,
) {
    // Test processes run side by side, so the lock has to be Postgres' own. It goes with the
    // connection, also when `migrate` panics.
    sqlx::query("SELECT pg_advisory_lock(hashtext($1))")
        .bind(template)
        .execute(&mut *superuser)
        .await
        .expect("could not lock the template");
    if !exists(template, superuser).await {
        // It gets its name when it is finished, so that half a template is never copied.
        let draft = format!("{template}_draft");
        let run = async |superuser: &mut PgConnection, statement: String| {
            superuser.execute(statement.as_str()).await.expect("could not prepare the template");
        };
        run(superuser, format!("DROP DATABASE IF EXISTS \"{draft}\" WITH (FORCE)")).await;
        run(superuser, format!("CREATE DATABASE \"{draft}\" TEMPLATE template0")).await;
        migrate(shared().database_url(&draft)).await.expect("the migrations failed");
        // Whoever is still connected would prevent copies.
        run(superuser, format!("ALTER DATABASE \"{draft}\" ALLOW_CONNECTIONS false")).await;
        sqlx::query(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1",
        )
        .bind(&draft)
        .execute(&mut *superuser)
        .await
        .expect("could not close the template");
        run(superuser, format!("ALTER DATABASE \"{draft}\" RENAME TO \"{template}\"")).await;
    }
    sqlx::query("SELECT pg_advisory_unlock(hashtext($1))")
        .bind(template)
        .execute(superuser)
        .await
        .expect("could not unlock the template");
}

async fn exists(database: &str, superuser: &mut PgConnection) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(database)
        .fetch_one(superuser)
        .await
        .expect("Postgres did not answer")
}

async fn connect_as_superuser() -> PgConnection {
    let url = shared().postgres_url;
    PgConnection::connect(&url).await.expect("could not connect to the shared Postgres")
}

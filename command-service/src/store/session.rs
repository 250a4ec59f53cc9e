//! The writer's connection to Postgres, with the settings that its promises rest on.
//!
//! A call that ends without an answer leaves a backend behind, which may wait for a lock or for a
//! synchronous standby. The session ends that backend before it allows another call, so at most one
//! call of a batch runs at a time and at most two backends exist.

use std::time::Duration;

use event_log::VANISHED_CLIENT;
use sqlx::postgres::PgConnectOptions;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};

use super::append;
use super::flight::{CallEnd, Reason};
use super::writer::{Commit, Judged};

/// Name that Postgres shows for the connection.
const NAME: &str = "command-service writer";
/// Timeout for opening a connection, and for ending the backend of a lost call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of the connection, beside those of [`VANISHED_CLIENT`]. They come before those of the role
/// and of the database.
const OPTIONS: [(&str, &str); 2] = [
    // Every statement of `append_events` needs a snapshot taken after the lock.
    ("default_transaction_isolation", "read\\ committed"),
    // Below the timeout for a call: Postgres answers, and the outcome is known.
    ("lock_timeout", "4s"),
];

/// The connection of the writer, opened when it is needed.
#[derive(Debug)]
pub(super) struct Session {
    address: PgConnectOptions,
    /// Dropped after every error, in whatever state it is.
    idle: Option<Link>,
    /// Backend of a call that ended without an answer, until it is known to have ended.
    lost: Option<Backend>,
}

/// An open connection and its backend.
#[derive(Debug)]
pub(super) struct Link {
    connection: PgConnection,
    backend: Backend,
}

/// Identity of a backend. A process id alone may be given to another one.
#[derive(Debug, Clone, Copy)]
struct Backend {
    process: i32,
    started: DateTime<Utc>,
}

/// Reason for which no call can be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    #[error("Postgres cannot be reached: {0}")]
    Unreachable(#[from] sqlx::Error),
    #[error("Postgres cannot be reached in time")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error("the backend of the call before, process {0}, has not ended yet")]
    StillRunning(i32),
}

/// Call without judgements.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("rolled back: {1}")]
    RolledBack(Reason, sqlx::Error),
    #[error("the connection broke: {0}")]
    Broken(sqlx::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("the answer cannot be understood: {0}")]
    NotUnderstood(sqlx::Error),
}

impl CallError {
    /// Returns how the call ended, or `None` if its answer cannot be understood.
    pub(super) fn end(&self) -> Option<CallEnd> {
        match self {
            Self::RolledBack(reason, _) => Some(CallEnd::RolledBack(*reason)),
            Self::Broken(_) => Some(CallEnd::Broken),
            Self::TimedOut => Some(CallEnd::TimedOut),
            Self::NotUnderstood(_) => None,
        }
    }
}

impl Session {
    pub(super) fn new(address: PgConnectOptions) -> Self {
        let address = address.application_name(NAME).options(VANISHED_CLIENT).options(OPTIONS);
        Self { address, idle: None, lost: None }
    }

    /// Returns a link for one call: connects if need be, and ends the backend of a lost call first.
    pub(super) async fn link(&mut self) -> Result<Link, NotReady> {
        match self.idle.take() {
            Some(link) if self.lost.is_none() => Ok(link),
            link => tokio::time::timeout(CONNECT_TIMEOUT, self.link_slowly(link)).await?,
        }
    }

    async fn link_slowly(&mut self, link: Option<Link>) -> Result<Link, NotReady> {
        let mut link = match link {
            Some(link) => link,
            None => Link::open(&self.address).await?,
        };
        if let Some(lost) = self.lost {
            if link.ends(lost).await? {
                self.idle = Some(link);
                return Err(NotReady::StillRunning(lost.process));
            }
            self.lost = None;
        }
        Ok(link)
    }

    /// Takes back a link that was not used.
    pub(super) fn put_back(&mut self, link: Link) {
        self.idle = Some(link);
    }

    /// Sends commits to Postgres.
    pub(super) async fn call(
        &mut self,
        mut link: Link,
        commits: &[&Commit],
    ) -> Result<Vec<Judged>, CallError> {
        let call = tokio::time::timeout(CALL_TIMEOUT, append::call(&mut link.connection, commits));
        let judged = match call.await {
            Ok(judged) => judged.map_err(append::classify),
            Err(_elapsed) => Err(CallError::TimedOut),
        };
        match &judged {
            Ok(_) => self.idle = Some(link),
            Err(CallError::Broken(_) | CallError::TimedOut) => self.lost = Some(link.backend),
            Err(CallError::RolledBack(..) | CallError::NotUnderstood(_)) => {}
        }
        judged
    }
}

impl Link {
    async fn open(address: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect_with(address).await?;
        // `remote_apply` promises more than `on`, and stays. Anything less would acknowledge commits
        // that a crash or a failover loses.
        let (process, started, _) = sqlx::query_as::<_, (i32, DateTime<Utc>, String)>(
            "SELECT pid, backend_start,
                    set_config(
                        'synchronous_commit',
                        CASE current_setting('synchronous_commit')
                            WHEN 'remote_apply' THEN 'remote_apply'
                            ELSE 'on'
                        END,
                        false
                    )
             FROM pg_stat_activity
             WHERE pid = pg_backend_pid()",
        )
        .fetch_one(&mut connection)
        .await?;
        Ok(Self { connection, backend: Backend { process, started } })
    }

    /// Terminates another backend of ours. Returns `true` if it has not ended yet.
    ///
    /// A backend that waits for a synchronous standby is left to wait: terminated, it would show its
    /// commit to readers before the standby has it.
    async fn ends(&mut self, lost: Backend) -> Result<bool, sqlx::Error> {
        let terminated: Option<bool> = sqlx::query_scalar(
            "SELECT CASE WHEN wait_event = 'SyncRep' THEN false ELSE pg_terminate_backend(pid) END
             FROM pg_stat_activity
             WHERE pid = $1 AND backend_start = $2",
        )
        .bind(lost.process)
        .bind(lost.started)
        .fetch_optional(&mut self.connection)
        .await?;
        if terminated == Some(true) {
            metrics::counter!("append_backends_terminated_total").increment(1);
        }
        Ok(terminated.is_some())
    }
}

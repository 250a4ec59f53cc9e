//! What an operator asks of the quarantine, and what is on record there.

use clap::Parser as _;
use domain::Position;
use projector::config::QuarantineArgs;
use testkit::eventually;

use super::Blog;

impl Blog {
    /// What `projector quarantine` says, or why it fails.
    pub(crate) async fn quarantine(&self, words: &[&str]) -> Result<String, String> {
        let settings = [
            ("--database-url", &self.database_url),
            ("--redis-url", &self.redis_url),
            ("--redis-prefix", &self.prefix),
        ];
        let settings = settings.into_iter().flat_map(|(name, value)| [name, value.as_str()]);
        let words = ["quarantine"].into_iter().chain(settings).chain(words.iter().copied());
        let mut said = vec![];
        let done = projector::quarantine::run(&QuarantineArgs::parse_from(words), &mut said).await;
        let said = String::from_utf8(said).unwrap();
        done.map(|()| said).map_err(|error| format!("{error:#}"))
    }

    /// The positions of all events on record.
    pub(crate) async fn on_record(&self) -> Vec<Position> {
        let entries = self.log.on_record(100).await.unwrap();
        entries.iter().map(|entry| entry.position).collect()
    }

    /// Waits until nothing is on record any more.
    pub(crate) async fn nothing_is_on_record(&self) {
        let nothing = async || self.on_record().await.is_empty();
        eventually("nothing is on record", nothing).await;
    }

    /// Stands for a program that knows the version in which the events were recorded that nobody could read:
    /// the test has no second program, so the stored version becomes one that this one knows.
    pub(crate) async fn learns_to_read(&self) {
        self.sql("UPDATE events SET event_version = '1'").await;
    }

    /// Has Postgres refuse to put anything on record.
    pub(crate) async fn takes_nothing_on_record(&self) {
        self.sql("ALTER TABLE quarantine ADD CONSTRAINT refuse CHECK (false) NOT VALID").await;
    }

    pub(crate) async fn takes_all_on_record(&self) {
        self.sql("ALTER TABLE quarantine DROP CONSTRAINT refuse").await;
    }

    async fn sql(&self, statement: &str) {
        sqlx::query(statement).execute(&self.pool).await.unwrap();
    }
}

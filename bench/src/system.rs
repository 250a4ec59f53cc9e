//! The services as processes of their own, on a database, a topic and a prefix that nobody else uses.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use domain::Position;
use event_log::EventLog;
use http_api::{Actor, AuthArgs, bearer};
use journeys::Service;
use read_model::{KeySpace, Views};
use testkit::{Launch, Place, Process, unique_name};

use crate::http::Connection;
use crate::requests::{Request, address_of};
use crate::store::NewStore;

const SECRET: &str = "the secret of all measurements: at least 32 bytes";

/// How long the views may take until they have everything.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(180);

/// What services need to be started, and a look at how far they are.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) store: NewStore,
    pub(crate) log: EventLog,
    settings: Vec<(&'static str, String)>,
    logs: Place,
}

/// All three services, at work.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) system: System,
    pub(crate) command: Service,
    pub(crate) projector: Service,
    pub(crate) query: Service,
    pub(crate) views: Views,
}

/// How many events have not arrived yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lag {
    pub(crate) in_kafka: f64,
    pub(crate) in_the_views: f64,
}

impl System {
    pub(crate) async fn new() -> anyhow::Result<Self> {
        Self::on_redis(testkit::shared().redis_url).await
    }

    /// With its views in this Redis.
    pub(crate) async fn on_redis(redis_url: String) -> anyhow::Result<Self> {
        let store = NewStore::create().await?;
        let log = EventLog::new(store.pool.clone(), store.partitions);
        let servers = testkit::shared();
        let settings = vec![
            ("INKSTREAM_DATABASE_URL", store.database.url().to_owned()),
            ("INKSTREAM_REDIS_URL", redis_url),
            ("INKSTREAM_REDIS_PREFIX", unique_name("bench")),
            ("INKSTREAM_KAFKA_BROKERS", servers.kafka),
            ("INKSTREAM_KAFKA_TOPIC", unique_name("events")),
            ("INKSTREAM_KAFKA_GROUP", unique_name("projector")),
            ("INKSTREAM_JWT_SECRET", SECRET.to_owned()),
        ];
        Ok(Self { store, log, settings, logs: Place::passing("bench")? })
    }

    /// Starts a service, and waits until it is ready. What `more` says counts.
    pub(crate) async fn start(&self, name: &'static str, more: &[(&'static str, &str)]) -> Service {
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings = self.settings.iter().cloned().chain(more).collect();
        Service::start(name, self.log_of(name), settings).await
    }

    /// Starts the projector's program for one thing that an operator wants of it.
    pub(crate) fn projector_tool(&self, words: &[&str]) -> anyhow::Result<Process> {
        let program = testkit::service_binary("projector")?;
        let launch = Launch::new("projector", program, self.log_of(words[0])).args(words);
        let launch =
            self.settings.iter().fold(launch, |launch, (key, value)| launch.env(*key, value));
        launch.start()
    }

    /// As if Kafka had carried all that is in the log, and kept nothing of it.
    pub(crate) async fn count_as_carried(&self) -> anyhow::Result<()> {
        sqlx::query("UPDATE relay SET cursor = (SELECT coalesce(max(position), 0) FROM events)")
            .execute(&self.store.pool)
            .await?;
        Ok(())
    }

    /// Holds the relay's lease in place of every command service, so that none of them carries anything.
    pub(crate) async fn hold_the_relay(&self) -> anyhow::Result<()> {
        sqlx::query(
            "UPDATE relay SET token = token + 1, holder = 'bench', expires_at = 'infinity'",
        )
        .execute(&self.store.pool)
        .await?;
        Ok(())
    }

    /// A bearer token with which posts are written.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let args = AuthArgs { jwt_secret: Some(SECRET.to_owned()), ..AuthArgs::default() };
        let actor = Actor { author_id: "anne".parse()?, name: Some("Anne".to_owned()) };
        bearer::sign(&args, &actor, Duration::from_secs(24 * 3600))
    }

    /// A place for files that are of no use afterwards.
    pub(crate) fn logs(&self) -> &Place {
        &self.logs
    }

    /// What a service has said, in all its lives.
    pub(crate) fn log_of(&self, name: &str) -> PathBuf {
        self.logs.path().join(format!("{name}.log"))
    }

    /// The views of our own prefix, or of another.
    pub(crate) fn views(&self, prefix: Option<&str>) -> anyhow::Result<Views> {
        let prefix = prefix.map_or_else(|| self.setting("INKSTREAM_REDIS_PREFIX"), Ok)?;
        let keys = KeySpace::new(prefix)?;
        let url = self.redis_url()?;
        Ok(Views::new(url, keys, self.store.partitions, Duration::from_secs(5))?)
    }

    pub(crate) fn redis_url(&self) -> anyhow::Result<&str> {
        self.setting("INKSTREAM_REDIS_URL")
    }

    fn setting(&self, name: &str) -> anyhow::Result<&str> {
        let setting = self.settings.iter().find(|(known, _)| *known == name);
        setting.map(|(_, value)| value.as_str()).context("no setting")
    }

    /// The position of the last event that Kafka has.
    pub(crate) async fn carried(&self) -> anyhow::Result<Position> {
        let cursor =
            sqlx::query_scalar("SELECT cursor FROM relay").fetch_one(&self.store.pool).await?;
        Ok(Position::from_i64(cursor))
    }

    /// Waits until Kafka has every event.
    pub(crate) async fn until_carried(&self) -> anyhow::Result<()> {
        let (head, began) = (self.log.head().await?, Instant::now());
        while self.carried().await? < head {
            ensure!(began.elapsed() < CATCH_UP_LIMIT, "the relay does not come to an end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Whole {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_on(System::new().await?).await
    }

    pub(crate) async fn start_on(system: System) -> anyhow::Result<Self> {
        let views = system.views(None)?;
        // It makes the topic, which the projector would otherwise have to wait for.
        let command = system.start("command-service", &[]).await;
        let (projector, query) =
            tokio::join!(system.start("projector", &[]), system.start("query-service", &[]));
        Ok(Self { system, command, projector, query, views })
    }

    /// How far Kafka and the views are behind the log.
    pub(crate) async fn lag(&self) -> anyhow::Result<Lag> {
        let head = self.system.log.head().await?;
        let carried = self.system.carried().await?;
        let mut in_the_views = 0;
        for (partition, mark) in
            self.system.store.partitions.all().zip(self.views.watermarks().await?)
        {
            let seen = mark.map_or(Position::ZERO, |mark| mark.point.position);
            in_the_views += self
                .system
                .log
                .count_between(partition, seen, head, i32::MAX.unsigned_abs())
                .await?;
        }
        Ok(Lag {
            in_kafka: head.0.saturating_sub(carried.0) as f64,
            in_the_views: in_the_views as f64,
        })
    }

    /// Waits until the views have every event.
    pub(crate) async fn until_seen(&self) -> anyhow::Result<()> {
        let came_to_an_end = self.have_seen_within(CATCH_UP_LIMIT).await?;
        ensure!(came_to_an_end, "the projector does not come to an end");
        Ok(())
    }

    /// Waits so long at most, and tells whether the views have every event that the log had at first.
    pub(crate) async fn have_seen_within(&self, limit: Duration) -> anyhow::Result<bool> {
        let heads = self.system.log.heads().await?;
        let began = Instant::now();
        loop {
            let marks = self.views.watermarks().await?;
            let reached = marks.iter().zip(&heads).all(|(mark, head)| {
                let filled = mark.as_ref().filter(|mark| mark.unfilled_below.is_none());
                filled.is_some_and(|mark| mark.point.position >= head.position)
            });
            if reached || began.elapsed() > limit {
                return Ok(reached);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The sum of a counter over all its labels that contain `label`, as a service tells it; zero if it has not
/// counted yet.
pub(crate) async fn counter(service: &Service, name: &str, label: &str) -> anyhow::Result<f64> {
    let address = address_of(&service.ops_url())?;
    let mut connection = Connection::open(address).await?;
    let answer = connection.ask(Request::get(address, "/metrics").next()).await?;
    let text = String::from_utf8_lossy(answer.body).into_owned();
    Ok(sum(&text, name, label))
}

fn sum(text: &str, name: &str, label: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let labels = series.strip_prefix(name)?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        (is_it && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    values.fold(0.0, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let text = "# TYPE a_total counter\na_total{b=\"x\"} 3\na_total{b=\"y\"} 4\na_total_more 9\nc_total 5\n";
        assert_eq!(sum(text, "a_total", ""), 7.0);
        assert_eq!(sum(text, "a_total", "b=\"y\""), 4.0);
        assert_eq!(sum(text, "c_total", ""), 5.0);
        assert_eq!(sum(text, "d_total", ""), 0.0);
    }
}

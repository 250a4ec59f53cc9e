//! A blog: its three services on a database, a topic, a consumer group and a prefix that nobody else uses.

use std::time::Duration;

use domain::Partitions;
use http_api::{Actor, AuthArgs, bearer};
use read_model::{KeySpace, Views};
use reqwest::redirect::Policy;
use testkit::{Launch, Place, eventually, eventually_within, service_binary, unique_name};

use crate::author::Author;
use crate::ground::Ground;
use crate::reader::Reader;
use crate::service::Service;

const SECRET: &str = "the secret of all tests: at least 32 bytes";

/// So that several partitions take part, and each has more than one post.
const PARTITIONS: &str = "4";

const PREFIX: &str = "INKSTREAM_REDIS_PREFIX";

/// Longer than any service lets a request take.
const PATIENCE: Duration = Duration::from_secs(60);

/// On a busy machine a server that is well may be silent for a while, and work in hand may take long. Only where a test
/// is about that do the services lose patience as early as they do otherwise.
const PATIENT: [(&str, &str); 5] = [
    ("INKSTREAM_QUEUE_MS", "60000"),
    ("INKSTREAM_REDIS_LIMIT_MS", "2000"),
    ("INKSTREAM_LOG_LIMIT_MS", "10000"),
    ("INKSTREAM_REQUEST_SECONDS", "20"),
    ("INKSTREAM_DRAIN_SECONDS", "25"),
];

/// On a machine that is busy with other tests.
const LIMIT_OF_A_TOOL: Duration = Duration::from_secs(60);

/// A running blog. Dropping it kills all that runs.
#[derive(Debug)]
pub struct Blog {
    pub command: Service,
    pub projector: Service,
    pub query: Service,
    pub(crate) ground: Ground,
    settings: Vec<(&'static str, String)>,
    logs: Place,
    client: reqwest::Client,
}

impl Blog {
    /// Starts everything on the servers of this run, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If something does not start.
    pub async fn start() -> Self {
        Self::start_on(Ground::shared().await, &[]).await
    }

    /// Starts everything on these servers, with more settings.
    ///
    /// # Panics
    ///
    /// If something does not start.
    pub async fn start_on(ground: Ground, more: &[(&'static str, &str)]) -> Self {
        Self::start_with(ground, &[&PATIENT, more].concat()).await
    }

    /// Starts everything on these servers, with the limits it has where nobody sets any.
    ///
    /// # Panics
    ///
    /// If something does not start.
    pub async fn start_impatient(ground: Ground) -> Self {
        Self::start_with(ground, &[]).await
    }

    async fn start_with(ground: Ground, more: &[(&'static str, &str)]) -> Self {
        let logs = Place::passing("blog").expect("no folder for logs");
        let mut settings = vec![
            ("INKSTREAM_DATABASE_URL", ground.database_url.clone()),
            ("INKSTREAM_REDIS_URL", ground.redis_url.clone()),
            (PREFIX, unique_name("blog")),
            ("INKSTREAM_KAFKA_BROKERS", ground.kafka.clone()),
            ("INKSTREAM_KAFKA_TOPIC", unique_name("events")),
            ("INKSTREAM_KAFKA_GROUP", unique_name("projector")),
            ("INKSTREAM_JWT_SECRET", SECRET.to_owned()),
        ];
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));

        migrate(&logs, &ground).await;
        let log = |name| logs.path().join(format!("{name}.log"));
        let start = |name| Service::start(name, log(name), settings.clone());
        // It makes the topic, which the projector would otherwise have to wait for.
        let command = start("command-service").await;
        let (projector, query) = tokio::join!(start("projector"), start("query-service"));

        let client = reqwest::Client::builder().redirect(Policy::none()).timeout(PATIENCE).build();
        let client = client.expect("no HTTP client");
        Self { command, projector, query, ground, settings, logs, client }
    }

    /// One more command service on the same store.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn another_command_service(&self) -> Service {
        let log = self.logs.path().join("another-command-service.log");
        Service::start("command-service", log, self.settings.clone()).await
    }

    /// Runs the projector as one of its tools, and tells whether it was content and what it said.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn projector_tool(&self, words: &[&str]) -> (bool, String) {
        let binary = service_binary("projector").expect("the services have not been built");
        let log = self.logs.path().join(format!("{}.log", unique_name("tool")));
        let launch = Launch::new("the tool", binary, &log).args(words);
        let launch =
            self.settings.iter().fold(launch, |launch, (key, value)| launch.env(*key, value));
        let mut tool = launch.start().expect("the tool did not start");
        let mut status = None;
        eventually_within(LIMIT_OF_A_TOOL, "the tool ends", async || {
            status = tool.exited().expect("the tool cannot be watched");
            status.is_some()
        })
        .await;
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        (status.is_some_and(|status| status.success()), said)
    }

    /// An author who may write.
    ///
    /// # Panics
    ///
    /// If that is no name for one.
    pub fn sign_up(&self, name: &str) -> Author {
        let token = self.token_of(name);
        let reader = self.reader().with_token(&token);
        Author::new(self.client.clone(), vec![self.command.url()], token, reader)
    }

    /// A bearer token of an author.
    ///
    /// # Panics
    ///
    /// If that is no name for one.
    pub fn token_of(&self, name: &str) -> String {
        let args = AuthArgs { jwt_secret: Some(SECRET.to_owned()), ..AuthArgs::default() };
        let author_id = name.parse().expect("not an id");
        let actor = Actor { author_id, name: Some(name.to_uppercase()) };
        bearer::sign(&args, &actor, Duration::from_secs(600)).expect("no token")
    }

    /// Several of them.
    pub fn sign_up_all<const N: usize>(&self, names: [&str; N]) -> Vec<Author> {
        names.map(|name| self.sign_up(name)).into()
    }

    /// The views themselves.
    pub(crate) fn views(&self) -> Views {
        // The last one holds, as for a process.
        let prefix = self.settings.iter().rev().find(|(name, _)| *name == PREFIX);
        let keys = prefix.and_then(|(_, prefix)| KeySpace::new(prefix).ok()).expect("no prefix");
        let partitions = PARTITIONS.parse().ok().and_then(Partitions::new).expect("no number");
        Views::new(&self.ground.redis_url, keys, partitions, PATIENCE).expect("no address of Redis")
    }

    /// Somebody who reads, and is known to nobody.
    pub fn reader(&self) -> Reader {
        Reader::new(self.client.clone(), self.query.url())
    }
}

impl Drop for Blog {
    #[expect(clippy::print_stderr, reason = "the logs vanish with the blog, and the test failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in [&self.command, &self.projector, &self.query] {
                eprintln!("The last words of the {}", service.last_words());
            }
        }
    }
}

/// Makes the tables, as an operator would.
async fn migrate(logs: &Place, ground: &Ground) {
    let binary = service_binary("command-service").expect("the services have not been built");
    let mut migration = Launch::new("migrate", binary, logs.path().join("migrate.log"))
        .args(["migrate", "--partitions", PARTITIONS])
        .env("INKSTREAM_DATABASE_URL", &ground.database_url)
        .start()
        .expect("the migrations did not start");
    eventually("the migrations end", async || {
        let ended = migration.exited().expect("the migrations cannot be watched");
        assert!(ended.is_none_or(|status| status.success()), "{}", migration.log_tail(20));
        ended.is_some()
    })
    .await;
}

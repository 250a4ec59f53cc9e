//! Starts the service in this process, on ports, a database and a topic of its own.

use std::net::SocketAddr;
use std::time::Duration;

use command_service::config::Command;
use command_service::{App, migrate};
use http_api::{Actor, AuthArgs, bearer};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use testkit::{TestDatabase, shared, unique_name};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const SECRET: &str = "the secret of all tests: at least 32 bytes";

/// On a busy machine work that is in hand may take a while. Only where a test is about that does the service lose
/// patience as early as it does otherwise.
const PATIENT: [(&str, &str); 3] =
    [("--queue-ms", "60000"), ("--request-seconds", "300"), ("--drain-seconds", "60")];

/// A service that runs until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Service {
    address: SocketAddr,
    ops_address: SocketAddr,
    database: Option<TestDatabase>,
    prefix: String,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

/// Starts it with a database of its own.
pub(crate) async fn start() -> Service {
    start_with(new_database().await, &[]).await
}

/// Starts it on a database, with more settings: `--queue-kib=2048`.
pub(crate) async fn start_with(database: TestDatabase, settings: &[&str]) -> Service {
    let url = database.url().to_owned();
    start_through(database, &url, settings).await
}

/// Starts it on a database that it reaches at another address.
pub(crate) async fn start_through(database: TestDatabase, url: &str, settings: &[&str]) -> Service {
    Service { database: Some(database), ..start_on(url, settings).await }
}

/// Starts it on a database that is not one of the shared server's.
pub(crate) async fn start_on(url: &str, settings: &[&str]) -> Service {
    let prefix = unique_name("views");
    let ours = [
        "command-service".to_owned(),
        format!("--database-url={url}"),
        format!("--redis-url={}", shared().redis_url),
        format!("--redis-prefix={prefix}"),
        format!("--kafka-brokers={}", shared().kafka),
        format!("--kafka-topic={}", unique_name("events")),
        "--http-address=127.0.0.1:0".to_owned(),
        "--ops-address=127.0.0.1:0".to_owned(),
        "--public-url=https://blog.example".to_owned(),
        format!("--jwt-secret={SECRET}"),
    ];
    let is_unsaid = |name: &str| !settings.iter().any(|setting| setting.starts_with(name));
    let patient = PATIENT.iter().filter(|(name, _)| is_unsaid(name));
    let patient = patient.map(|(name, value)| format!("{name}={value}"));
    let settings = settings.iter().copied().map(str::to_owned);
    // No setting may be there twice.
    let ours = ours.into_iter().filter(|ours| ours.split('=').next().is_some_and(is_unsaid));
    let words = ours.chain(patient).chain(settings);
    let Ok(Command::Serve(config)) = Command::try_parse_from(words) else {
        panic!("the settings were refused")
    };
    let app = App::build(*config).await.expect("the service did not start");
    let (address, ops_address) = (app.address(), app.ops_address());
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(app.run_until(async {
        // Dropping the service stops it, too.
        let _ = stopped.await;
    }));
    let client = reqwest::Client::new();
    Service { address, ops_address, database: None, prefix, client, stop, running }
}

/// A database with a store of 4 partitions.
pub(crate) async fn new_database() -> TestDatabase {
    // One template for each run: it must not outlive the migrations it was made by.
    let template = format!("command_service_{}", std::process::id());
    TestDatabase::from_template(&template, create_store).await
}

/// Creates a store of 4 partitions in an empty database.
pub(crate) async fn create_store(url: String) -> anyhow::Result<()> {
    let words = ["command-service", "migrate", "--partitions", "4", "--database-url", &url];
    match Command::try_parse_from(words) {
        Ok(Command::Migrate(args)) => migrate::run(&args).await,
        other => panic!("expected to migrate: {other:?}"),
    }
}

/// A token of `author`, as the service expects it.
pub(crate) fn token(author: &str) -> String {
    let args = AuthArgs { jwt_secret: Some(SECRET.to_owned()), ..AuthArgs::default() };
    let actor =
        Actor { author_id: author.parse().expect("not an id"), name: Some(author.to_uppercase()) };
    bearer::sign(&args, &actor, Duration::from_secs(600)).expect("no token was made")
}

impl Service {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn database(&self) -> &TestDatabase {
        self.database.as_ref().expect("its database is not one of the shared server's")
    }

    /// What its keys in Redis begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A request without a token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    /// A request of Anne's.
    pub(crate) fn anne(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(token("anne"))
    }

    pub(crate) async fn ops(&self, path: &str) -> Response {
        let url = format!("http://{}{path}", self.ops_address);
        self.client.get(url).send().await.expect("the ops port did not answer")
    }

    /// Tells it to stop and waits until it has.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        // If nobody listens it has ended already, and the task says how.
        let _ = self.stop.send(());
        self.running.await.expect("the service panicked")
    }
}

/// The status and document of an answer.
pub(crate) async fn told(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.expect("the service did not answer");
    (answer.status().as_u16(), answer.json().await.expect("the answer is not JSON"))
}

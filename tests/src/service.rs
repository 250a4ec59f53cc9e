//! One of our services as a process: started, killed, told to stop, and started again where it was.

use std::path::PathBuf;
use std::process::ExitStatus;

use testkit::{Process, eventually, eventually_some, free_port, service_process};

/// A running service, or one that has been ended.
#[derive(Debug)]
pub struct Service {
    name: &'static str,
    settings: Vec<(&'static str, String)>,
    log: PathBuf,
    http: String,
    ops: String,
    process: Process,
    client: reqwest::Client,
}

impl Service {
    /// Starts it on free ports and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not become ready.
    pub async fn start(
        name: &'static str,
        log: PathBuf,
        mut settings: Vec<(&'static str, String)>,
    ) -> Self {
        let address = || format!("127.0.0.1:{}", free_port().expect("no port is free"));
        let (http, ops) = (address(), address());
        settings.push(("INKSTREAM_HTTP_ADDRESS", http.clone()));
        settings.push(("INKSTREAM_OPS_ADDRESS", ops.clone()));
        let process = spawn(name, &log, &settings);
        let client = reqwest::Client::new();
        let mut service = Self { name, settings, log, http, ops, process, client };
        service.until_ready().await;
        service
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is reached: `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Where it is told how it fares: `http://host:port`.
    pub fn ops_url(&self) -> String {
        format!("http://{}", self.ops)
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it at once, as `kill -9` does.
    ///
    /// # Panics
    ///
    /// If it had ended by itself.
    pub fn kill(&mut self) {
        self.process.require_running().expect("it should have been running");
        self.process.kill().expect("the process could not be killed");
    }

    /// Asks it to end as an operator would, and says how it did.
    ///
    /// # Panics
    ///
    /// If it had ended by itself.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.process.require_running().expect("it should have been running");
        self.process.terminate().await.expect("the process could not be ended")
    }

    /// Waits until it has ended of itself, and says how.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually_some(&format!("the {} ends", self.name), async || {
            self.process.exited().expect("the process cannot be watched")
        })
        .await
    }

    /// Starts it again after its end, with the same settings and ports, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If it does not become ready.
    pub async fn start_again(&mut self) {
        self.process = spawn(self.name, &self.log, &self.settings);
        self.until_ready().await;
    }

    /// Returns `true` if the service says so itself.
    pub async fn is_ready(&self) -> bool {
        let answer = self.client.get(format!("http://{}/health/ready", self.ops)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// Fails with the states of all checks, unless the service is ready.
    ///
    /// # Panics
    ///
    /// If it is not ready, or the ops port does not answer.
    pub async fn assert_ready(&self, when: &str) {
        let answer = self.client.get(format!("http://{}/health/ready", self.ops)).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{when}: no answer: {error}"));
        let is_ready = answer.status().is_success();
        let checks = answer.text().await.unwrap_or_default();
        assert!(is_ready, "{when}: the {} is not ready: {checks}", self.name);
    }

    /// What it tells at `/metrics`.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub async fn metrics(&self) -> String {
        let answer = self.client.get(format!("http://{}/metrics", self.ops)).send().await;
        answer.expect("no metrics").text().await.expect("no metrics")
    }

    /// What it has said, for a test that fails.
    pub(crate) fn last_words(&self) -> String {
        format!("{}:\n{}", self.name, self.process.log_tail(25))
    }

    async fn until_ready(&mut self) {
        eventually(&format!("the {} is ready", self.name), async || {
            self.process.require_running().expect("it ended instead of becoming ready");
            self.is_ready().await
        })
        .await;
    }
}

fn spawn(name: &str, log: &std::path::Path, settings: &[(&'static str, String)]) -> Process {
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    service_process(name, log, &settings).expect("a service did not start")
}

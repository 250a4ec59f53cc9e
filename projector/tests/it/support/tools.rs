//! The projector's tools, run as an operator would.

use std::fs;

use event_log::{Generation, GenerationState, Generations};
use testkit::{Launch, Process, Signal, eventually_some, eventually_within, unique_name};

use super::Blog;

/// Long enough for a machine that is busy with other tests: whoever works a fiftieth of the time makes fifty of a
/// moment.
pub(crate) const LIMIT: std::time::Duration = std::time::Duration::from_secs(600);

/// A rebuild in small parts, so that there is time to disturb it; and it is soon over once all are there.
pub(crate) const SLOWLY: [&str; 5] = [
    "rebuild",
    "--rebuild-lanes=1",
    "--rebuild-part-events=3",
    "--rebuild-share=2",
    "--rebuild-verify-pages=10",
];

/// A tool that runs, or has run.
pub(crate) struct Tool {
    process: Process,
}

impl Blog {
    /// Starts the projector as a tool.
    pub(crate) fn tool(&self, words: &[&str]) -> Tool {
        self.tool_on(&self.redis_url, words)
    }

    /// The same, with a way of its own to Redis.
    pub(crate) fn tool_on(&self, redis_url: &str, words: &[&str]) -> Tool {
        let log = self.place.path().join(format!("{}.log", unique_name("tool")));
        let launch = Launch::new("tool", env!("CARGO_BIN_EXE_projector"), log)
            .args(words)
            .env("INKSTREAM_DATABASE_URL", &self.database_url)
            .env("INKSTREAM_REDIS_URL", redis_url)
            .env("INKSTREAM_REDIS_PREFIX", &self.prefix);
        Tool { process: launch.start().unwrap() }
    }

    /// Rebuilds, and looks at the new generation from then on.
    pub(crate) async fn rebuild(&mut self) -> String {
        let said = self.tool(&["rebuild", "--rebuild-share=100"]).succeeds().await;
        self.follow_active().await;
        said
    }

    /// Looks at the generation that readers are answered from.
    pub(crate) async fn follow_active(&mut self) {
        let active = self.generation(GenerationState::Active).await.expect("none is active");
        self.views = self.views.of_generation(active.number);
    }

    /// Waits until so many parts of a generation have been written.
    pub(crate) async fn has_written_parts(&self, parts: u32) {
        eventually_within(LIMIT, "some parts are written", async || {
            let building = self.generation(GenerationState::Building).await;
            building.is_some_and(|one| one.parts_done >= parts)
        })
        .await;
    }

    /// Waits until all parts of a generation have been written, and what came since.
    pub(crate) async fn has_built(&self) {
        eventually_within(LIMIT, "it follows", async || {
            self.generation(GenerationState::Following).await.is_some()
        })
        .await;
    }

    pub(crate) fn generations(&self) -> Generations {
        Generations::new(self.pool.clone())
    }

    pub(crate) async fn generation(&self, state: GenerationState) -> Option<Generation> {
        let generations = self.generations();
        let all = eventually_some("Postgres answers", async || generations.all().await.ok()).await;
        all.into_iter().rfind(|generation| generation.state == state)
    }
}

impl Tool {
    /// Waits until it has ended, and tells whether it is content and what it said.
    pub(crate) async fn ends(&mut self) -> (bool, String) {
        let mut status = None;
        eventually_within(LIMIT, "the tool ends", async || {
            status = self.process.exited().unwrap();
            status.is_some()
        })
        .await;
        (status.unwrap().success(), self.said())
    }

    pub(crate) async fn succeeds(mut self) -> String {
        let (content, said) = self.ends().await;
        assert!(content, "{said}");
        said
    }

    pub(crate) async fn fails(mut self) -> String {
        let (content, said) = self.ends().await;
        assert!(!content, "{said}");
        said
    }

    /// Has it stand still, or go on.
    pub(crate) fn signal(&mut self, signal: Signal) {
        self.process.require_running().unwrap();
        self.process.signal(signal).unwrap();
    }

    pub(crate) fn kill(mut self) {
        self.process.require_running().unwrap();
        self.process.kill().unwrap();
    }

    /// Waits until it has said something so many times.
    pub(crate) async fn says(&self, what: &str, times: usize) {
        eventually_within(LIMIT, what, async || self.said().matches(what).count() >= times).await;
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.process.log()).unwrap()
    }
}

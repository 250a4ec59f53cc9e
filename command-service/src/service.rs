//! What every handler has at hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::extract::FromRef;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use domain::post::PostCommand;
use domain::post::SlugChoice;
use domain::{Partitions, Position, PostId};
use http_api::{ConsistencyToken, Problem, TokenVerifier};
use read_model::Waiting;

use crate::caller::Caller;
use crate::execute::{ExecuteError, Order, Posts, Stream, outcome_name};

/// Shared by all requests. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) posts: Posts,
    pub(crate) verifier: TokenVerifier,
    pub(crate) waiting: Waiting,
    pub(crate) partitions: Partitions,
    /// The store's present life, kept up to date.
    pub(crate) incarnation: Arc<AtomicU32>,
    /// Where readers find the pages; without a slash at its end.
    pub(crate) public_url: Arc<str>,
    /// Whether the cookie with the consistency token is kept from plain connections.
    pub(crate) secure_cookie: bool,
    /// How long a command may take, apart from waiting for the views.
    pub(crate) command_limit: Duration,
}

impl FromRef<Service> for TokenVerifier {
    fn from_ref(service: &Service) -> Self {
        service.verifier.clone()
    }
}

impl Service {
    /// Carries out what a caller asks of one post, and answers. The command is counted by its name.
    pub(crate) async fn execute(
        &self,
        name: &'static str,
        caller: &Caller,
        post_id: PostId,
        stream: Stream,
        commands: impl Fn(SlugChoice) -> Vec<PostCommand> + Send + Sync,
    ) -> Result<Response, Problem> {
        let order = Order {
            post_id,
            stream,
            metadata: caller.metadata(),
            // Where something is made there is nothing yet that could have a version.
            if_match: caller.if_match().filter(|_| stream == Stream::Existing),
            key: caller.key(),
            commands,
        };
        let answered = tokio::time::timeout(self.command_limit, self.posts.execute(order)).await;
        let late = |_| ExecuteError::Unavailable(anyhow::anyhow!("it took too long"));
        let answered = answered.map_err(late).flatten();
        let outcome = outcome_name(&answered);
        metrics::counter!("commands_total", "command" => name, "outcome" => outcome).increment(1);
        Ok(self.answer(caller, &answered?).await)
    }

    pub(crate) fn hand_out_token(
        &self,
        caller: &Caller,
        post_id: PostId,
        position: Position,
        headers: &mut HeaderMap,
    ) {
        let partition = self.partitions.of(&post_id.to_string());
        let incarnation = self.incarnation.load(Ordering::Relaxed);
        let token = ConsistencyToken::new(incarnation, partition, position);
        token.merge(caller.shown()).hand_out(headers, self.secure_cookie);
    }

    /// Waits until the views have an event, if the caller prefers that; says so if they have.
    pub(crate) async fn wait(
        &self,
        caller: &Caller,
        post_id: PostId,
        position: Position,
        headers: &mut HeaderMap,
    ) {
        let Some(limit) = caller.wait() else { return };
        let partition = self.partitions.of(&post_id.to_string());
        let incarnation = self.incarnation.load(Ordering::Relaxed);
        if self.waiting.reached(incarnation, partition, position, limit).await {
            headers.insert("preference-applied", HeaderValue::from_static("wait"));
        }
    }
}

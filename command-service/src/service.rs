//! What every handler has at hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRef;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use domain::post::PostCommand;
use domain::post::SlugChoice;
use domain::{Partitions, Position, PostId};
use event_log::EventLog;
use http_api::{ConsistencyTokens, PostAddress, Problem, TokenVerifier};
use read_model::Waiting;
use uuid::Uuid;

use crate::caller::Caller;
use crate::execute::{ExecuteError, Order, Posts, Stream, outcome_name};
use crate::postgres::ReadOnly;

/// Time from the deadline of an append to the limit for all else in a command.
const APPEND_MARGIN: Duration = Duration::from_millis(500);
/// Time from the deadline of an append to the limit of its whole request.
const REQUEST_MARGIN: Duration = Duration::from_secs(1);

/// Post that a command is about.
#[derive(Debug)]
pub(crate) enum Target {
    /// One that the command creates.
    New,
    Existing(PostAddress),
}

/// Shared by all requests. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) posts: Posts,
    /// Knows which post a slug names.
    pub(crate) log: EventLog,
    pub(crate) verifier: TokenVerifier,
    pub(crate) waiting: Waiting,
    pub(crate) partitions: Partitions,
    pub(crate) read_only: ReadOnly,
    pub(crate) consistency: ConsistencyTokens,
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
        target: Target,
        commands: impl Fn(PostId, SlugChoice) -> Vec<PostCommand> + Send + Sync,
    ) -> Result<Response, Problem> {
        let deadline = deadline(Instant::now(), self.command_limit, caller.deadline());
        let execute = async {
            let (post_id, stream) = self.resolve(&target).await?;
            let order = Order {
                post_id,
                stream,
                metadata: caller.metadata(),
                // Where something is made there is nothing yet that could have a version.
                if_match: caller.if_match().filter(|_| stream == Stream::Existing),
                key: caller.key(),
                deadline,
                commands: |choice| commands(post_id, choice),
            };
            self.posts.execute(order).await
        };
        // The append ends at the deadline, and only it can tell whether the outcome is known. This
        // limit is for all else, and comes later so that it never cuts off an append.
        let limit = tokio::time::Instant::from_std(deadline + APPEND_MARGIN);
        let unavailable = |why: &'static str| ExecuteError::Unavailable(anyhow::anyhow!(why));
        let answered = if self.read_only.is_known() {
            // It would be in vain to let each command wait as long as it may.
            Err(unavailable("Postgres takes no writes"))
        } else {
            let answered = tokio::time::timeout_at(limit, execute).await;
            answered.unwrap_or_else(|_elapsed| Err(unavailable("it took too long")))
        };
        let outcome = outcome_name(&answered);
        metrics::counter!("commands_total", "command" => name, "outcome" => outcome).increment(1);
        Ok(self.answer(caller, &answered?).await)
    }

    /// Returns the id of the post that a command is about.
    ///
    /// A slug is never given to another post, but it may be claimed at any time, so this is not cached.
    async fn resolve(&self, target: &Target) -> Result<(PostId, Stream), ExecuteError> {
        let new_id = || PostId(Uuid::now_v7());
        match target {
            Target::New => Ok((new_id(), Stream::New)),
            Target::Existing(PostAddress::Id(id)) => Ok((*id, Stream::Existing)),
            Target::Existing(PostAddress::Slug(slug)) => {
                let claim = self.log.claim_of(slug).await.map_err(ExecuteError::Unavailable)?;
                // A slug that names no post is treated as an unknown id: the responses must not
                // tell it from the slug of another author's draft, with an idempotency key or without.
                let id = claim.map_or_else(new_id, |claim| claim.post_id);
                Ok((id, Stream::Existing))
            }
        }
    }

    pub(crate) fn hand_out_token(
        &self,
        caller: &Caller,
        post_id: PostId,
        position: Position,
        headers: &mut HeaderMap,
    ) {
        let partition = self.partitions.of(&post_id.to_string());
        let token = self.consistency.issue(partition, position, caller.shown());
        self.consistency.hand_out(&token, headers, self.secure_cookie);
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
        // The response to a recorded command must leave before the limit of the request.
        let left = caller.deadline().map(|end| end.saturating_duration_since(Instant::now()));
        let limit = left.map_or(limit, |left| limit.min(left.saturating_sub(APPEND_MARGIN)));
        let partition = self.partitions.of(&post_id.to_string());
        let incarnation = self.consistency.incarnation();
        if self.waiting.reached(incarnation, &[(partition, position)], limit).await {
            headers.insert("preference-applied", HeaderValue::from_static("wait"));
        }
    }
}

/// Returns the time by which a command must be answered. If its body took long to arrive, that is
/// earlier than usual: the limit of the whole request must not hide the outcome.
fn deadline(now: Instant, command_limit: Duration, request_ends: Option<Instant>) -> Instant {
    let of_command = now + command_limit;
    let of_request = request_ends.and_then(|end| end.checked_sub(REQUEST_MARGIN));
    of_request.map_or(of_command, |of_request| of_request.min(of_command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_answered_before_its_request_is_ended() {
        let (now, seconds) = (Instant::now(), Duration::from_secs);
        let deadline = |request_ends| deadline(now, seconds(10), request_ends);
        assert_eq!(deadline(None), now + seconds(10));
        assert_eq!(deadline(Some(now + seconds(30))), now + seconds(10));
        // Its body took nearly all the time there was.
        assert_eq!(deadline(Some(now + seconds(4))), now + seconds(4) - REQUEST_MARGIN);
        assert!(REQUEST_MARGIN > APPEND_MARGIN);
    }
}

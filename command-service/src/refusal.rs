//! Which refusal gets which status and code.

use http_api::Problem;

use crate::execute::{ExecuteError, Refusal};

/// What a client is told that was refused, the post being at this version.
pub(crate) fn problem(refusal: Refusal, version: u64) -> Problem {
    match refusal {
        Refusal::NotFound => Problem::not_found("there is no such post"),
        Refusal::Deleted => Problem::gone("the post has been deleted"),
        Refusal::NotTheAuthor => Problem::forbidden("only its author may change a post"),
        Refusal::VersionMismatch => Problem::precondition_failed(version),
        Refusal::SlugTaken => Problem::slug_taken(),
    }
}

impl From<ExecuteError> for Problem {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Conflict => Self::version_conflict("others keep changing this post"),
            ExecuteError::KeyReused => Self::idempotency_key_reused(),
            ExecuteError::Overloaded => Self::unavailable("too many commands are waiting", 1),
            ExecuteError::Unavailable(error) => {
                tracing::warn!("A command could not be recorded: {error:#}");
                Self::unavailable("commands cannot be recorded at the moment", 2)
            }
            ExecuteError::OutcomeUnknown { has_key } => {
                tracing::warn!(has_key, "the outcome of a command is unknown");
                Self::outcome_unknown(has_key.then_some(2))
            }
            ExecuteError::Internal(error) => {
                tracing::error!("A command failed: {error:#}");
                Self::internal()
            }
        }
    }
}

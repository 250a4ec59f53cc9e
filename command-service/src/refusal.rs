//! Which refusal gets which status and code.

use domain::post::PostError;
use http_api::Problem;

use crate::execute::ExecuteError;

impl From<ExecuteError> for Problem {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Refused(error) => refused(error),
            ExecuteError::SlugTaken => Self::slug_taken(),
            ExecuteError::Conflict => Self::version_conflict("others keep changing this post"),
            ExecuteError::Overloaded => Self::unavailable("too many commands are waiting", 1),
            ExecuteError::Unavailable(error) => {
                tracing::warn!("A command could not be recorded: {error:#}");
                Self::unavailable("commands cannot be recorded at the moment", 2)
            }
            ExecuteError::Internal(error) => {
                tracing::error!("A command failed: {error:#}");
                Self::internal()
            }
        }
    }
}

fn refused(error: PostError) -> Problem {
    let detail = error.to_string();
    match error {
        PostError::NotFound => Problem::not_found(detail),
        PostError::Deleted => Problem::gone(detail),
        PostError::NotTheAuthor => Problem::forbidden(detail),
        // Ids are made here, so somebody else made the same one at the same time.
        PostError::AlreadyExists => Problem::version_conflict(detail),
    }
}

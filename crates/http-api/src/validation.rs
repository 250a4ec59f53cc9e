//! Collects what is wrong with the fields of a request, so that a client hears all of it at once.

use domain::Invalid;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Problem;

/// Longer names and messages quote a client's own input back at it.
const MAX_QUOTED_CHARS: usize = 200;

/// A field that cannot be accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The path to it: `title`, `tags.2`; empty for the body as a whole.
    pub field: String,
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
}

impl FieldError {
    pub fn new(field: &str, code: &'static str, message: &str) -> Self {
        let cut = |text: &str| text.chars().take(MAX_QUOTED_CHARS).collect();
        Self { field: cut(field), code, message: cut(message) }
    }
}

/// The fields of one request that cannot be accepted.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    pub fn new() -> Self {
        Self::default()
    }

    /// The value, if it is good. If not, a default stands in for it, which [`FieldErrors::finish`]
    /// lets nobody use.
    pub fn check<T: Default>(&mut self, field: &str, value: Result<T, Invalid>) -> T {
        value.unwrap_or_else(|invalid| {
            self.0.push(FieldError::new(field, invalid.code, &invalid.message));
            T::default()
        })
    }

    /// Refuses the request if any check has failed.
    pub fn finish(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::validation_failed(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid() -> Invalid {
        Invalid { code: "empty", message: "must not be empty".into() }
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let mut errors = FieldErrors::new();
        assert_eq!(errors.check("a", Ok(1)), 1);
        errors.check("b", Err::<u8, _>(invalid()));
        errors.check("c", Err::<u8, _>(invalid()));
        let told = ["b", "c"].map(|field| FieldError::new(field, "empty", "must not be empty"));
        assert_eq!(errors.finish(), Err(Problem::validation_failed(told.to_vec())));
    }

    #[test]
    fn a_long_input_is_not_quoted_in_full() {
        let error = FieldError::new(&"ü".repeat(1000), "unknown_field", "is not known");
        assert_eq!(error.field, "ü".repeat(200));
    }
}

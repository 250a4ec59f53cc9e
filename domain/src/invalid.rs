//! Why a value from outside was not accepted.

use std::borrow::Cow;

/// A value that breaks a limit of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// Stable, for programs: `too_long`, `empty`, `nul`, ….
    pub code: &'static str,
    /// For people; begins in lower case and ends without a period.
    pub message: Cow<'static, str>,
}

impl Invalid {
    pub(crate) fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    /// Refuses NUL, which `jsonb` cannot hold.
    pub(crate) fn unless_free_of_nul(text: &str) -> Result<(), Self> {
        if text.contains('\0') {
            return Err(Self::new("nul", "must not contain the character NUL"));
        }
        Ok(())
    }

    /// Refuses text of more than `most` characters.
    pub(crate) fn unless_at_most(text: &str, most: usize) -> Result<(), Self> {
        if text.chars().count() > most {
            return Err(Self::new("too_long", format!("must have at most {most} characters")));
        }
        Ok(())
    }
}

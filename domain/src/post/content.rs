//! What a post says: its texts, each within its limits.
//!
//! The limits are checked when a text comes in. A stored text is taken as it is, so that an event stays
//! readable when a limit is tightened.

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};

use super::Tag;
use crate::Invalid;

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text! {
    /// 1–200 characters, without white space at its ends.
    Title
}
text! {
    /// The text of a post: Markdown, 0–262,144 bytes.
    Body
}
text! {
    /// At most 500 characters; an empty one stands for none.
    Summary
}

impl TryFrom<String> for Title {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Invalid::unless_free_of_nul(&text)?;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(Invalid::new("empty", "must not be empty"));
        }
        Invalid::unless_at_most(trimmed, 200)?;
        Ok(Self(trimmed.to_owned()))
    }
}

impl TryFrom<String> for Body {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        const MAX_BYTES: usize = 262_144;
        Invalid::unless_free_of_nul(&text)?;
        if text.len() > MAX_BYTES {
            return Err(Invalid::new("too_long", format!("must have at most {MAX_BYTES} bytes")));
        }
        Ok(Self(text))
    }
}

impl TryFrom<String> for Summary {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Invalid::unless_free_of_nul(&text)?;
        Invalid::unless_at_most(&text, 500)?;
        Ok(Self(text))
    }
}

/// All that a post says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostContent {
    pub title: Title,
    pub content: Body,
    #[serde(default)]
    pub summary: Summary,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

/// What a revision says anew; what it does not name stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostChanges {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Title>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Body>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<Tag>>,
}

impl PostChanges {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_title_is_accepted_within_its_limits_and_then_as_it_was_written(text in ".{0,250}") {
            let trimmed = text.trim();
            let within = (1..=200).contains(&trimmed.chars().count()) && !trimmed.contains('\0');
            match Title::try_from(text.clone()) {
                Ok(title) => prop_assert!(within && title.as_str() == trimmed),
                Err(_) => prop_assert!(!within || text.contains('\0')),
            }
        }
    }

    #[test]
    fn a_title_is_trimmed_and_then_measured() {
        assert_eq!(Title::try_from("  On writing \n".to_owned()).unwrap().as_str(), "On writing");
        assert!(Title::try_from(format!(" {} ", "ß".repeat(200))).is_ok());
        assert_eq!(Title::try_from("x".repeat(201)).unwrap_err().code, "too_long");
        assert_eq!(Title::try_from(" \t".to_owned()).unwrap_err().code, "empty");
        assert_eq!(Title::try_from("a\0b".to_owned()).unwrap_err().code, "nul");
    }

    #[test]
    fn a_body_is_measured_in_bytes_and_may_be_empty() {
        assert!(Body::try_from(String::new()).is_ok());
        assert!(Body::try_from("x".repeat(262_144)).is_ok());
        assert_eq!(Body::try_from("x".repeat(262_145)).unwrap_err().code, "too_long");
        assert_eq!(Body::try_from("\0".to_owned()).unwrap_err().code, "nul");
    }

    #[test]
    fn a_summary_is_measured_in_characters() {
        assert!(Summary::try_from("ü".repeat(500)).is_ok());
        assert_eq!(Summary::try_from("ü".repeat(501)).unwrap_err().code, "too_long");
    }
}

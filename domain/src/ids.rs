//! The ids of authors and posts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Invalid;

/// Who writes: the `sub` of a bearer token, 1–128 of `A–Z a–z 0–9 . _ - | @`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuthorId(String);

impl AuthorId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AuthorId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-|@".contains(c);
        if text.is_empty() || text.len() > 128 || !text.chars().all(allowed) {
            return Err(Invalid::new(
                "malformed",
                "an author id has 1 to 128 of the characters A-Z a-z 0-9 . _ - | @",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for AuthorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A post, and the page that shows it: a UUIDv7, so that ids made later sort later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PostId(pub Uuid);

impl PostId {
    /// Twelve of the random digits of the id: what makes a second slug for one title unique.
    pub fn random_digits(self) -> String {
        let digits = self.0.simple().to_string();
        digits[digits.len() - 12..].to_owned()
    }
}

impl FromStr for PostId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

impl fmt::Display for PostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_id_is_short_and_plain() {
        for good in ["anne", "auth0|5f7c", "anne@example.org", "A.b_c-9", &"a".repeat(128)] {
            assert_eq!(good.parse::<AuthorId>().unwrap().as_str(), good);
        }
        for bad in ["", "anne smith", "änne", "a\0", "a/b", &"a".repeat(129)] {
            assert!(bad.parse::<AuthorId>().is_err(), "{bad:?} was accepted");
        }
    }
}

//! Tags: the author's spelling, and the slug that addresses and lists use in its place.

use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::slug::MAX_SLUG_CHARS;

/// Maximum number of tags of a post.
pub const MAX_TAGS: usize = 10;

/// Maximum number of characters of a tag.
const MAX_CHARS: usize = 40;

/// A tag as its author spells it: 1–40 characters, without white space at its ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tag(String);

impl Tag {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the slug by which the tag is found. Two tags are equal if their slugs are.
    pub fn slug(&self) -> Option<TagSlug> {
        TagSlug::of(&self.0).ok()
    }
}

impl TryFrom<String> for Tag {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Invalid::unless_free_of_nul(&text)?;
        let trimmed = text.trim();
        Invalid::unless_at_most(trimmed, MAX_CHARS)?;
        TagSlug::of(trimmed)?;
        Ok(Self(trimmed.to_owned()))
    }
}

/// Name of a tag in addresses and lists: 1–80 of `a–z 0–9 -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TagSlug(String);

impl TagSlug {
    /// Returns the slug of a spelling. The slug of a slug is that slug.
    pub fn of(spelling: &str) -> Result<Self, Invalid> {
        // Transliteration makes many characters out of one, so the input has a bound, too.
        Invalid::unless_at_most(spelling, MAX_SLUG_CHARS)?;
        let slug = slug::slugify(spell_out(spelling));
        if slug.is_empty() {
            return Err(Invalid::new("malformed", "must contain a letter or a digit"));
        }
        if slug.len() > MAX_SLUG_CHARS {
            let message = format!("makes an address of more than {MAX_SLUG_CHARS} characters");
            return Err(Invalid::new("too_long", message));
        }
        Ok(Self(slug))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// Replaces the symbols that tell names apart by words: `C++`, `C#`, `.NET`, `A*`, `R&D`, `B-`.
///
/// Punctuation, which only separates words, is left to transliteration: `Node.js`, `TCP/IP`.
fn spell_out(spelling: &str) -> String {
    let mut text = String::with_capacity(spelling.len());
    for word in spelling.split_whitespace() {
        // A dash within a slug separates words, and no slug ends with one.
        let name = word.trim_end_matches('-');
        for (at, symbol) in name.char_indices() {
            let (before, behind) = (&name[..at], &name[at + symbol.len_utf8()..]);
            match word_for(before, symbol, behind) {
                Some(word) => text.extend([" ", word, " "]),
                None => text.push(symbol),
            }
        }
        if !name.is_empty() {
            text.extend(word[name.len()..].chars().map(|_dash| " minus"));
        }
        text.push(' ');
    }
    text
}

/// Returns the word that a symbol between two parts of a name stands for.
fn word_for(before: &str, symbol: char, behind: &str) -> Option<&'static str> {
    match symbol {
        '+' | '＋' => Some("plus"),
        '&' | '＆' => Some("and"),
        '*' | '＊' => Some("star"),
        '@' | '＠' => Some("at"),
        '%' | '％' => Some("percent"),
        '$' | '＄' => Some("dollar"),
        '=' | '＝' => Some("equals"),
        '<' | '＜' => Some("less"),
        '>' | '＞' => Some("greater"),
        '^' => Some("caret"),
        '~' | '～' => Some("tilde"),
        '|' | '｜' => Some("pipe"),
        // `#rust` is a habit of writing `rust`.
        '#' | '＃' | '♯' if before.contains(char::is_alphanumeric) => Some("sharp"),
        '.' if before.is_empty() && behind.starts_with(char::is_alphanumeric) => Some("dot"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn slug_of(text: &str) -> String {
        Tag::try_from(text.to_owned()).unwrap().slug().unwrap().into_string()
    }

    #[test]
    fn a_tag_keeps_its_spelling_and_is_found_by_its_slug() {
        let tag = Tag::try_from(" Event Sourcing\t".to_owned()).unwrap();
        assert_eq!(tag.as_str(), "Event Sourcing");
        assert_eq!(tag.slug().unwrap().as_str(), "event-sourcing");
    }

    #[test]
    fn names_that_differ_in_a_symbol_have_slugs_that_differ() {
        let names = [
            ("C", "c"),
            ("C++", "c-plus-plus"),
            ("C#", "c-sharp"),
            ("C♯♯", "c-sharp-sharp"),
            ("C--", "c-minus-minus"),
            (".NET", "dot-net"),
            ("NET", "net"),
            ("ASP.NET", "asp-net"),
            ("F#", "f-sharp"),
            ("A*", "a-star"),
            ("*nix", "star-nix"),
            ("B+", "b-plus"),
            ("B-", "b-minus"),
            ("R&D", "r-and-d"),
            ("R D", "r-d"),
            ("Research & Development", "research-and-development"),
            ("Node.js", "node-js"),
            ("TCP/IP", "tcp-ip"),
            ("@angular", "at-angular"),
            ("100%", "100-percent"),
            ("a == b", "a-equals-equals-b"),
        ];
        for (name, slug) in names {
            assert_eq!(slug_of(name), slug, "{name}");
        }
        let slugs: HashSet<&str> = names.iter().map(|(_, slug)| *slug).collect();
        assert_eq!(slugs.len(), names.len());
    }

    #[test]
    fn punctuation_and_case_do_not_tell_names_apart() {
        for same in
            ["rust", "Rust", "#rust", "Rust!", "(rust)", "(#rust)", "- rust", "…rust", "...rust"]
        {
            assert_eq!(slug_of(same), "rust", "{same}");
        }
        assert_eq!(slug_of("CQRS – why?"), "cqrs-why");
    }

    #[test]
    fn a_tag_without_a_slug_is_refused() {
        for nothing in ["", " ", "…", "#", "##", "- -", "--", "!?"] {
            assert_eq!(
                Tag::try_from(nothing.to_owned()).unwrap_err().code,
                "malformed",
                "{nothing}"
            );
        }
        assert_eq!(Tag::try_from("a\0".to_owned()).unwrap_err().code, "nul");
    }

    #[test]
    fn a_tag_is_measured_after_trimming_and_its_slug_has_a_bound() {
        assert!(Tag::try_from(format!(" {} ", "ß".repeat(40))).is_ok());
        for long in ["x".repeat(41), "+".repeat(40)] {
            assert_eq!(Tag::try_from(long.clone()).unwrap_err().code, "too_long", "{long}");
        }
    }

    proptest! {
        #[test]
        fn a_tag_is_found_by_its_slug_and_by_its_spelling(text in "[a-zA-Zß#+.&* -]{1,42}|.{0,50}") {
            if let Ok(tag) = Tag::try_from(text) {
                let slug = tag.slug().unwrap();
                prop_assert!((1..=MAX_SLUG_CHARS).contains(&slug.as_str().len()));
                prop_assert_eq!(TagSlug::of(slug.as_str()), Ok(slug.clone()));
                prop_assert_eq!(TagSlug::of(tag.as_str()), Ok(slug));
            }
        }
    }
}

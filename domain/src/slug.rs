//! The readable name of a post in its address.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Invalid, Position, PostId};

/// How many characters a slug has at most; all of them ASCII.
pub const MAX_SLUG_CHARS: usize = 80;

/// Words that are, or may become, part of an address of ours. A post must not hide them.
const RESERVED: [&str; 22] = [
    "admin", "api", "assets", "authors", "comments", "docs", "drafts", "feed", "health", "login",
    "me", "metrics", "new", "openapi", "post", "posts", "search", "sitemap", "static", "style",
    "tags", "users",
];

/// 1–80 characters: words of `a–z 0–9` with a dash between two of them; never shaped like a UUID, never a
/// reserved word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slug(String);

/// That a post has claimed a slug, no later than at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub post_id: PostId,
    pub position: Position,
}

impl Slug {
    /// The slug that a title suggests. Where it suggests none that may be used, the id helps out.
    pub fn from_title(title: &str, id: PostId) -> Self {
        let text = cut_at_dash(&slug::slugify(title), MAX_SLUG_CHARS);
        text.parse().unwrap_or_else(|_| Self::from_title_and_id(title, id))
    }

    /// The slug of a title whose own is taken: the same with digits from the id behind it.
    pub fn from_title_and_id(title: &str, id: PostId) -> Self {
        let digits = id.random_digits();
        let with_digits = |text: &str| {
            let text = cut_at_dash(text, MAX_SLUG_CHARS - digits.len() - 1);
            format!("{text}-{digits}").parse()
        };
        let words = slug::slugify(title);
        // Digits make a UUID of a title that lacks only the last part of one, and stand alone behind no title.
        let slug = with_digits(&words).or_else(|_| with_digits(&format!("post-{words}")));
        slug.unwrap_or_else(|_| Self(format!("post-{digits}")))
    }

    /// A slug as it was recorded. The rules may have become stricter since; it stays what it is.
    pub fn recorded(text: String) -> Self {
        Self(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !text.split('-').all(|word| !word.is_empty() && word.chars().all(allowed)) {
            return Err(Invalid::new(
                "malformed",
                "a slug is words of the characters a-z 0-9, with a single dash between two of them",
            ));
        }
        Invalid::unless_at_most(text, MAX_SLUG_CHARS)?;
        if Uuid::try_parse(text).is_ok() {
            return Err(Invalid::new("reserved", "must not be shaped like a UUID"));
        }
        if RESERVED.contains(&text) {
            return Err(Invalid::new("reserved", format!("`{text}` is a reserved word")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// At most `most` of `text`, which is ASCII, ending with a whole word where there is one.
fn cut_at_dash(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let cut = &text[..most];
    let whole_words = match text.as_bytes()[most] {
        b'-' => cut,
        _ => cut.rsplit_once('-').map_or(cut, |(words, _)| words),
    };
    whole_words.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: PostId = PostId(Uuid::from_u128(0x0192_f0c1_2d3e_7f4a_8b5c_6d7e_8f90_1234));

    #[test]
    fn a_title_gives_a_readable_slug() {
        assert_eq!(Slug::from_title("On Writing", ID).as_str(), "on-writing");
        assert_eq!(Slug::from_title("it's Bob's", ID).as_str(), "it-s-bob-s");
    }

    #[test]
    fn a_title_that_says_nothing_in_ascii_gets_its_slug_from_the_id() {
        for title in ["!!!", "—", "…", "\u{200c}"] {
            assert_eq!(Slug::from_title(title, ID).as_str(), "post-6d7e8f901234");
        }
    }

    #[test]
    fn a_title_that_is_a_reserved_word_or_a_uuid_gets_digits_behind_it() {
        assert_eq!(Slug::from_title("Posts", ID).as_str(), "posts-6d7e8f901234");
        let uuid = "0192f0c1-2d3e-7f4a-8b5c-6d7e8f901234";
        assert_eq!(Slug::from_title(uuid, ID).as_str(), format!("{uuid}-6d7e8f901234"));
    }

    #[test]
    fn a_long_title_is_cut_after_a_word() {
        let slug = Slug::from_title(&"wonderful ".repeat(20), ID);
        assert_eq!(slug.as_str(), "wonderful-".repeat(8).trim_end_matches('-'));
        assert_eq!(Slug::from_title(&"x".repeat(200), ID).as_str(), "x".repeat(80));
    }

    #[test]
    fn an_author_may_not_take_what_is_reserved() {
        for bad in
            ["", "A", "a b", "posts", "me", "0192f0c12d3e7f4a8b5c6d7e8f901234", &"a".repeat(81)]
        {
            assert!(bad.parse::<Slug>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn dashes_stand_alone_and_between_words() {
        for bad in ["-", "--", "-a", "a-", "a--b", "--a-b"] {
            assert_eq!(bad.parse::<Slug>().unwrap_err().code, "malformed", "{bad}");
        }
        assert!("a-b-1".parse::<Slug>().is_ok());
    }

    #[test]
    fn digits_do_not_make_a_title_a_uuid() {
        let slug = Slug::from_title_and_id("0192f0c1-2d3e-7f4a-8b5c", ID);
        assert_eq!(slug.as_str(), "post-0192f0c1-2d3e-7f4a-8b5c-6d7e8f901234");
    }

    /// Titles of all sorts, among them those whose slug alone or with digits behind it is no slug.
    fn any_title() -> impl Strategy<Value = String> {
        let uuid = any::<u128>().prop_map(|number| Uuid::from_u128(number).to_string());
        let part_of_a_uuid = (uuid.clone(), 0..36_usize).prop_map(|(uuid, end)| uuid[..end].into());
        let simple = any::<u128>().prop_map(|number| format!("{number:032x}"));
        let reserved = prop::sample::select(&RESERVED[..]).prop_map(str::to_owned);
        let text = prop_oneof![
            4 => ".{0,300}",
            2 => part_of_a_uuid,
            1 => uuid,
            1 => simple,
            1 => reserved,
            1 => "[-a]{0,90}",
            1 => "[a-f0-9]{8}(-[a-f0-9]{4}){3}[ -]{0,2}[a-f0-9]{0,12}",
        ];
        (text, "[-! ]{0,2}").prop_map(|(text, dashes)| format!("{dashes}{text}{dashes}"))
    }

    proptest! {
        #[test]
        fn every_title_gives_two_slugs_that_an_author_could_have_asked_for(
            title in any_title(),
            id in any::<u128>(),
        ) {
            let id = PostId(Uuid::from_u128(id));
            for slug in [Slug::from_title(&title, id), Slug::from_title_and_id(&title, id)] {
                let asked = slug.as_str().parse::<Slug>();
                prop_assert_eq!(asked, Ok(slug));
            }
        }
    }
}

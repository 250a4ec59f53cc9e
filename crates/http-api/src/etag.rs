//! Entity tags of posts (RFC 9110, section 8.8.3), built by one service and understood by the other.
//!
//! A response to a command carries `"<version>"`, a representation of a post `"<version>-<digest>"`. No other
//! entity tag begins with a digit, so `If-Match` can tell which of them name a version of a post.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

/// Returns the entity tag of a post at a version.
pub fn of_version(version: u64) -> HeaderValue {
    header(format!("\"{version}\""))
}

/// Returns the entity tag of one representation of a post at a version.
pub fn of_post(version: u64, representation: &[u8]) -> HeaderValue {
    let digest = format!("{:x}", Sha256::digest(representation));
    // Half of the digest tells the representations of one version apart.
    header(format!("\"{version}-{}\"", &digest[..32]))
}

fn header(text: String) -> HeaderValue {
    // Digits, dashes and quotes are visible ASCII.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Value of `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`
    Any,
    /// Opaque text of each entity tag, strong or weak.
    List(Vec<Vec<u8>>),
}

/// A header that is neither `*` nor a list of entity tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl EntityTags {
    /// Reads a header, whose lines make up one list. Returns `None` where it is missing.
    pub fn read(headers: &HeaderMap, name: HeaderName) -> Result<Option<Self>, Malformed> {
        let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        Self::parse(&lines.join(&b',')).map(Some)
    }

    fn parse(text: &[u8]) -> Result<Self, Malformed> {
        if text.trim_ascii() == b"*" {
            return Ok(Self::Any);
        }
        let (mut tags, mut rest) = (vec![], text);
        loop {
            rest = trim_start(rest);
            // A recipient accepts empty members of a list (RFC 9110, section 5.6.1.2).
            if !rest.is_empty() && rest[0] != b',' {
                let (tag, behind) = split_tag(rest).ok_or(Malformed)?;
                tags.push(tag.to_owned());
                rest = trim_start(behind);
            }
            match rest.split_first() {
                None => return Ok(Self::List(tags)),
                Some((b',', behind)) => rest = behind,
                Some(_) => return Err(Malformed),
            }
        }
    }

    /// Returns `true` if one of them is an entity tag of a post at this version.
    ///
    /// A compressing proxy weakens an entity tag or adds a suffix to it, so both are accepted.
    pub fn include_version(&self, version: u64) -> bool {
        match self {
            Self::Any => true,
            Self::List(tags) => tags.iter().any(|tag| version_of(tag) == Some(version)),
        }
    }
}

/// The version that an entity tag of a post begins with.
fn version_of(tag: &[u8]) -> Option<u64> {
    let tag = std::str::from_utf8(tag).ok()?;
    let version = match tag.split_once('-') {
        Some((_, "")) => return None,
        Some((version, _)) => version,
        None => tag,
    };
    let number = version.parse::<u64>().ok()?;
    // There is one way to write a version, without a sign or leading zeros.
    (number.to_string() == version).then_some(number)
}

/// Splits off one entity tag and returns what stands between its quotes.
fn split_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = text.strip_prefix(b"W/").unwrap_or(text).strip_prefix(b"\"")?;
    let is_allowed = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..=0xff);
    let end = quoted.iter().position(|byte| !is_allowed(byte))?;
    let behind = quoted[end..].strip_prefix(b"\"")?;
    Some((&quoted[..end], behind))
}

/// Optional white space is spaces and tabs.
fn trim_start(text: &[u8]) -> &[u8] {
    let begin = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    &text[begin.unwrap_or(text.len())..]
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&str]) -> Result<Option<EntityTags>, Malformed> {
        let line =
            |line: &&str| (header::IF_MATCH, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        EntityTags::read(&lines.iter().map(line).collect(), header::IF_MATCH)
    }

    fn list(tags: &[&str]) -> Result<Option<EntityTags>, Malformed> {
        Ok(Some(EntityTags::List(tags.iter().map(|tag| tag.as_bytes().to_vec()).collect())))
    }

    #[test]
    fn every_list_of_the_standard_is_read() {
        assert_eq!(read(&[]), Ok(None));
        for any in ["*", " * ", "\t*"] {
            assert_eq!(read(&[any]), Ok(Some(EntityTags::Any)), "{any:?}");
        }
        assert_eq!(read(&["\"3\""]), list(&["3"]));
        assert_eq!(read(&["\"3\" , W/\"4\"", "\"5\""]), list(&["3", "4", "5"]));
        assert_eq!(read(&["\"3\","]), list(&["3"]));
        assert_eq!(read(&[", ,\"3\"\t,,\"4\" "]), list(&["3", "4"]));
        assert_eq!(read(&["\"x,y\", \"3\""]), list(&["x,y", "3"]));
        assert_eq!(read(&["\"*\", \"\", \"ü\\\""]), list(&["*", "", "ü\\"]));
        assert_eq!(read(&[""]), list(&[]));
    }

    #[test]
    fn what_is_no_list_of_entity_tags_is_malformed() {
        for bad in [
            "3",
            "\"3",
            "3\"",
            "w/\"3\"",
            "W/ \"3\"",
            "W/3",
            "\"a\"b\"",
            "\"a\" \"b\"",
            "\"a b\"",
            "\"9\", *",
            "*, \"9\"",
            "*,",
            "*, *",
            "**",
            "'3'",
            "\"3\";",
        ] {
            assert_eq!(read(&[bad]), Err(Malformed), "{bad} was accepted");
        }
        assert_eq!(read(&["\"9\"", "*"]), Err(Malformed));
    }

    #[test]
    fn a_version_is_named_by_a_response_to_a_command_and_by_a_representation() {
        let representation = of_post(7, b"{}");
        let representation = representation.to_str().unwrap();
        assert_eq!(of_version(7), "\"7\"");
        assert!(representation.starts_with("\"7-"), "{representation}");
        let weak = format!("W/{representation}");
        for good in ["\"7\"", "W/\"7\"", representation, &weak, "\"7-gzip\"", "*"] {
            assert!(read(&[good]).unwrap().unwrap().include_version(7), "{good}");
            let others = format!("\"x\", {good}, \"8\"");
            assert_eq!(
                read(&[&others]).is_ok_and(|tags| tags.unwrap().include_version(7)),
                good != "*"
            );
        }
        for other in [
            "\"07\"", "\"+7\"", "\"70\"", "\"7-\"", "\"7x\"", "\"-7\"", "\"\"", "\"x7\"", "\"7 \"",
            "",
        ] {
            let names = read(&[other]).is_ok_and(|tags| tags.unwrap().include_version(7));
            assert!(!names, "{other}");
        }
    }

    #[test]
    fn representations_of_one_version_differ_with_their_bytes() {
        assert_eq!(of_post(7, b"a"), of_post(7, b"a"));
        assert_ne!(of_post(7, b"a"), of_post(7, b"b"));
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(lines in prop::collection::vec("[ -~\t]{0,20}", 0..3)) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let _ = read(&lines);
        }

        #[test]
        fn a_list_is_read_back(tags in prop::collection::vec("[!#-~]{0,9}", 1..5)) {
            let text = tags.iter().map(|tag| format!("W/\"{tag}\"")).collect::<Vec<_>>().join(" ,");
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            prop_assert_eq!(read(&[&text]), list(&tags));
        }
    }
}

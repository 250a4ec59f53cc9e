//! Which of the two forms of an answer a request asks for (RFC 9110, section 12.5.1).

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};

/// The form an answer is given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// For whoever would rather have it: a browser names it, a program that takes anything does not.
    Html,
}

impl Form {
    pub(crate) fn wanted(headers: &HeaderMap) -> Self {
        let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<Range<'_>> =
            values.flat_map(|value| value.split(',')).filter_map(Range::parse).collect();
        if weight(&ranges, "text", "html") > weight(&ranges, "application", "json") {
            Self::Html
        } else {
            Self::Json
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Form {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::wanted(&parts.headers))
    }
}

/// Tells caches that the form depends on what is asked for.
pub(crate) fn vary_by_form(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(header::VARY).iter().filter_map(|line| line.to_str().ok());
    let is_told = lines.any(|line| line.split(',').any(|name| name.trim() == "Accept"));
    if !is_told {
        headers.append(header::VARY, HeaderValue::from_static("Accept"));
    }
}

struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths.
    weight: u16,
}

impl<'a> Range<'a> {
    /// `None` for what cannot be read, which is passed over. Parameters other than the weight name forms that we
    /// have not got, so that a range with one counts as the type alone.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut weights = parts.filter_map(|part| part.split_once('='));
        let weight = match weights.find(|(name, _)| name.eq_ignore_ascii_case("q")) {
            Some((_, weight)) => thousandths(weight)?,
            None => 1000,
        };
        Some(Self { kind, subtype, weight })
    }

    /// How closely it names a type: not at all, by `*/*`, by half of it, or wholly.
    fn closeness(&self, kind: &str, subtype: &str) -> Option<u8> {
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (this, "*") if this.eq_ignore_ascii_case(kind) => Some(1),
            (this, that)
                if this.eq_ignore_ascii_case(kind) && that.eq_ignore_ascii_case(subtype) =>
            {
                Some(2)
            }
            _ => None,
        }
    }
}

/// The weight of a type is that of the range which names it most closely.
fn weight(ranges: &[Range<'_>], kind: &str, subtype: &str) -> u16 {
    let named =
        ranges.iter().filter_map(|range| Some((range.closeness(kind, subtype)?, range.weight)));
    named.max().map_or(0, |(_, weight)| weight)
}

fn thousandths(text: &str) -> Option<u16> {
    let weight: f32 = text.parse().ok()?;
    // Within this range the number of thousandths is exact, and no sign or remainder is lost.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    (0.0..=1.0).contains(&weight).then(|| (weight * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_for_those_who_would_rather_have_it() {
        for html in [
            "text/html",
            "TEXT/HTML",
            "text/html;charset=utf-8",
            "text/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            "application/json;q=0.5, text/html;q=0.6",
            "text/html;q=0.001",
            "*/*;q=0.1, text/html;q=0.2",
            "application/json;q=0, text/html;q=0.1, */*",
            "text/html;level=1",
            "text/html ; Q=0.5, application/json ; q=0.4",
        ] {
            assert_eq!(wanted(&[html]), Form::Html, "{html}");
        }
        assert_eq!(wanted(&["application/json;q=0.5", "text/html"]), Form::Html);
    }

    #[test]
    fn json_is_for_all_others() {
        for json in [
            "",
            "*/*",
            "application/json",
            "application/*",
            "text/html, application/json",
            "text/html;q=0.5, application/json;q=0.5",
            "text/html;q=0.5, */*;q=0.6",
            "text/html;q=0",
            "text/html;q=0, */*",
            "text/html;q=2",
            "text/html;q=",
            "text/html;q=NaN",
            "text/plain",
            "image/png",
            "html",
            ",;=,/,",
            "application/problem+json",
        ] {
            assert_eq!(wanted(&[json]), Form::Json, "{json}");
        }
        assert_eq!(wanted(&[]), Form::Json);
    }

    fn wanted(lines: &[&'static str]) -> Form {
        let pair = |line: &&'static str| (header::ACCEPT, HeaderValue::from_static(line));
        Form::wanted(&lines.iter().map(pair).collect())
    }
}

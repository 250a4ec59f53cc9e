//! Turns the errors of parsers into refusals that name the field.

use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use crate::{FieldError, Problem};

pub(super) fn bad_syntax(error: &serde_json::Error) -> Problem {
    Problem::invalid_request(format!("the body is not valid JSON: {error}"))
}

pub(super) fn require_json(text: &str) -> Result<(), Problem> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ()).map_err(|error| bad_syntax(&error))
}

pub(super) fn not_an_object() -> Problem {
    Problem::validation_failed(vec![FieldError::new("", "wrong_type", "expected an object")])
}

pub(super) fn json_error(
    text: &str,
    error: serde_path_to_error::Error<serde_json::Error>,
) -> Problem {
    let path = dotted(error.path());
    let error = error.into_inner();
    match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => bad_syntax(&error),
        // The parser stops at the first field that does not fit. The rest has not been looked at,
        // and unless it is JSON, that is what is wrong with the body.
        Category::Data => require_json(text).err().unwrap_or_else(|| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let message = error.to_string();
            misfit(path, message.strip_suffix(&place).unwrap_or(&message))
        }),
    }
}

pub(super) fn form_error(
    error: serde_path_to_error::Error<serde_urlencoded::de::Error>,
) -> Problem {
    misfit(dotted(error.path()), &error.into_inner().to_string())
}

/// What serde found to be wrong with a field. Its messages are all that tells one kind from another.
fn misfit(path: String, message: &str) -> Problem {
    let codes = [
        ("unknown field `", "unknown_field"),
        ("missing field `", "missing"),
        ("duplicate field `", "duplicate"),
        ("unknown variant `", "not_allowed"),
    ];
    let known = codes.into_iter().find_map(|(start, code)| {
        let name = message.strip_prefix(start)?.split('`').next()?;
        Some((code, name))
    });
    let (code, field) = match known {
        None => ("wrong_type", path),
        Some((code @ "not_allowed", _)) => (code, path),
        // The path ends at the object whose field this is, or at the field.
        Some((code, name)) if path.is_empty() => (code, name.to_owned()),
        Some((code, name)) if path == name || path.ends_with(&format!(".{name}")) => (code, path),
        Some((code, name)) => (code, format!("{path}.{name}")),
    };
    Problem::validation_failed(vec![FieldError::new(&field, code, message)])
}

fn dotted(path: &Path) -> String {
    let names = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    names.collect::<Vec<_>>().join(".")
}

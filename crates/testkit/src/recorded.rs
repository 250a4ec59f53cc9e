//! What a service says, recorded in the checkout, so that a change of it shows in a review.

use std::fs;

use serde_json::Value;

use crate::workspace_root;

/// Set to anything, it makes tests rewrite what is recorded.
const REWRITE: &str = "UPDATE_RECORDED";

/// Panics unless the file of this checkout holds the same JSON.
pub fn expect_recorded(path: &str, actual: &Value) {
    if rewrites() {
        let text = serde_json::to_string_pretty(actual).expect("JSON can be written");
        write(path, &(text + "\n"));
        return;
    }
    let recorded: Value = serde_json::from_str(&read(path)).unwrap_or_default();
    expect(recorded == *actual, path);
}

/// Panics unless the page of this checkout has this text, and no other, below a heading of the second level.
pub fn expect_recorded_below(heading: &str, path: &str, actual: &str) {
    let page = read(path);
    let heading = format!("## {heading}\n");
    let begin = page.find(&heading).map(|at| at + heading.len());
    let begin = begin.unwrap_or_else(|| panic!("{path} has no heading `{}`", heading.trim_end()));
    let end = page[begin..].find("\n## ").map_or(page.len(), |at| begin + at + 1);
    let (before, recorded, after) = (&page[..begin], &page[begin..end], &page[end..]);
    if rewrites() {
        let between = if after.is_empty() { "" } else { "\n" };
        write(path, &format!("{before}\n{}\n{between}{after}", actual.trim()));
        return;
    }
    expect(recorded.trim() == actual.trim(), path);
}

fn expect(same: bool, path: &str) {
    assert!(
        same,
        "{path} says something else than the service; if the service is right, run this test again with \
         {REWRITE}=1 and commit what it writes"
    );
}

fn rewrites() -> bool {
    std::env::var_os(REWRITE).is_some()
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace_root().join(path)).unwrap_or_default()
}

fn write(path: &str, text: &str) {
    fs::write(workspace_root().join(path), text)
        .unwrap_or_else(|error| panic!("could not write {path}: {error}"));
}

//! What a service says, recorded in the checkout, so that a change of it shows in a review.

use std::fs;

use serde_json::Value;

use crate::workspace_root;

/// Set to anything, it makes tests rewrite what is recorded.
const REWRITE: &str = "UPDATE_OPENAPI";

/// Panics unless the file of this checkout holds the same JSON.
pub fn expect_recorded(path: &str, actual: &Value) {
    let file = workspace_root().join(path);
    if std::env::var_os(REWRITE).is_some() {
        let text = serde_json::to_string_pretty(actual).expect("JSON can be written");
        fs::write(&file, text + "\n")
            .unwrap_or_else(|error| panic!("could not write {path}: {error}"));
        return;
    }
    let text = fs::read_to_string(&file).unwrap_or_default();
    let recorded: Value = serde_json::from_str(&text).unwrap_or_default();
    assert!(
        recorded == *actual,
        "{path} says something else than the service; if the service is right, run this test again with \
         {REWRITE}=1 and commit what it writes"
    );
}

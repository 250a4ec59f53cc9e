//! Equal bytes for equal texts: with every cleaner, and in every process.

use std::io::Write as _;
use std::process::Command;

use sha2::{Digest as _, Sha256};

use super::{Rendered, clean, render, to_html, with_wide_tables};
use crate::corpus::TEXTS;

/// Set for the process that a test starts to compare itself with.
const CHILD: &str = "INKSTREAM_TEST_RENDERS_FOR_COMPARISON";
const DOCUMENTS: u64 = 10_000;

/// Parts of generated documents: everything that the renderer writes differently, and what breaks it off.
const PARTS: [&str; 60] = [
    "word ",
    "two words",
    "é",
    "\u{a0}",
    " ",
    "    ",
    "\t",
    "\n",
    "\n\n",
    "\\",
    "  \n",
    "&amp;",
    "&",
    "\"",
    "'",
    "> ",
    "*",
    "**",
    "_",
    "~~",
    "`",
    "``",
    "\n```rust\n",
    "\n~~~\n",
    "- ",
    "\n- ",
    "\n2. ",
    "\n# ",
    "\n### ",
    "\n---\n",
    "\n===\n",
    "\n- [ ] ",
    "\n- [x] ",
    "  - [X] ",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n",
    "\n|-|-|\n",
    "|",
    "[a](https://a.example/?b=1&c=2 \"t\")",
    "[a](/b)",
    "[a](javascript:c)",
    "![a](https://a.example/b.png \"t\")",
    "![a](b.png)",
    "https://a.example/b ",
    "www.a.example ",
    "a@b.example ",
    "<https://a.example>",
    "[a][b]",
    "\n[b]: https://b.example 'u'\n",
    "[^1]",
    "[^2]",
    "\n[^1]: note\n",
    "\n[^2]: other\n",
    "[",
    "](",
    ")",
    "![",
    "<",
    "<b title=\"c\">",
    "<!-- -->",
    "</div>\n",
];

#[test]
fn every_cleaner_writes_the_same_bytes() {
    for text in TEXTS {
        // A text that nests too deep is not shown to the cleaner.
        let Some(Rendered { html, .. }) = render(text, usize::MAX) else { continue };
        let html = with_wide_tables(&html);
        let expected = clean::clean(&html);
        for _ in 0..50 {
            assert_eq!(clean::cleaner().clean(&html).to_string(), expected, "of {text:?}");
        }
    }
}

#[test]
fn two_processes_render_the_same_bytes() {
    if std::env::var_os(CHILD).is_some() {
        return write!(std::io::stdout(), "digest={};", digest()).unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "markdown::determinism::two_processes_render_the_same_bytes"])
        .env(CHILD, "yes")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let here = digest();
    let output = child.wait_with_output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let there = output.split_once("digest=").and_then(|(_, rest)| rest.split_once(';'));
    assert_eq!(there.map(|(digest, _)| digest), Some(here.as_str()), "{output}");
}

/// Digest of the HTML of generated documents, the same ones in each process.
fn digest() -> String {
    let mut digest = Sha256::new();
    for seed in 0..DOCUMENTS {
        let html = to_html(&document(seed));
        digest.update(html.len().to_be_bytes());
        digest.update(html);
    }
    format!("{:x}", digest.finalize())
}

fn document(seed: u64) -> String {
    let mut numbers = Numbers(seed);
    let length = 1 + numbers.below(24);
    (0..length).map(|_| PARTS[numbers.below(PARTS.len())]).collect()
}

/// Generator of numbers that depend on the seed alone (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

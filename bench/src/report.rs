//! The figures: a table for people, JSON for programs.

use std::time::Instant;

use serde_json::{Map, Value, json};

/// Collects figures under headings.
#[derive(Debug)]
pub(crate) struct Report {
    began: Instant,
    settings: Vec<(String, String)>,
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Heading(String),
    Figure { key: &'static str, what: String, value: f64, unit: &'static str },
}

impl Report {
    pub(crate) fn new(settings: Vec<(String, String)>) -> Self {
        Self { began: Instant::now(), settings, lines: Vec::new() }
    }

    #[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
    pub(crate) fn progress(&self, doing: &str) {
        eprintln!("{:>5.0} s  {doing}", self.began.elapsed().as_secs_f64());
    }

    pub(crate) fn heading(&mut self, text: &str) {
        self.lines.push(Line::Heading(text.to_owned()));
    }

    /// `key` is its name in the JSON file.
    pub(crate) fn figure(&mut self, key: &'static str, what: &str, value: f64, unit: &'static str) {
        self.lines.push(Line::Figure { key, what: what.to_owned(), value, unit });
    }

    #[expect(clippy::print_stdout, reason = "the table is what this program is for")]
    pub(crate) fn print(&self) {
        println!();
        for (name, value) in &self.settings {
            println!("{name:<28} {value}");
        }
        for line in &self.lines {
            match line {
                Line::Heading(text) => println!("\n{text}"),
                Line::Figure { what, value, unit, .. } if *value < 100.0 => {
                    println!("  {what:<60} {value:>10.2} {unit}");
                }
                Line::Figure { what, value, unit, .. } => {
                    println!("  {what:<60} {value:>10.0} {unit}");
                }
            }
        }
    }

    /// Writes `target/bench.json`: the figures by their keys, and `settings`.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let mut figures = Map::new();
        for line in &self.lines {
            if let Line::Figure { key, value, .. } = line {
                figures.insert((*key).to_owned(), json!(value));
            }
        }
        let settings: Map<String, Value> =
            self.settings.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        figures.insert("settings".to_owned(), settings.into());
        let path = testkit::workspace_root().join("target/bench.json");
        Ok(std::fs::write(path, serde_json::to_string_pretty(&figures)?)?)
    }
}

/// The middle one; of an even number, the higher of the two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

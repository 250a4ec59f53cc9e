//! The figures: a table for people, JSON for programs.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
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
    Note(String),
    Figure { key: String, what: String, value: f64, unit: &'static str, aim: Option<Aim> },
}

/// What we want a figure to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    /// The aim, and whether it is met.
    fn judge(self, value: f64) -> String {
        let (sign, bound, met) = match self {
            Self::AtLeast(bound) => ("≥", bound, value >= bound),
            Self::AtMost(bound) => ("≤", bound, value <= bound),
        };
        format!("aim {sign} {bound}: {}", if met { "met" } else { "missed" })
    }
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

    /// A sentence that belongs to the figures around it.
    pub(crate) fn note(&mut self, text: &str) {
        self.lines.push(Line::Note(text.to_owned()));
    }

    /// `key` is its name in the JSON file; `object/member` puts it into an object.
    pub(crate) fn figure(&mut self, key: &str, what: &str, value: f64, unit: &'static str) {
        self.add(key, what, value, unit, None);
    }

    /// A figure of which we want something.
    pub(crate) fn aimed(
        &mut self,
        key: &str,
        what: &str,
        value: f64,
        unit: &'static str,
        aim: Aim,
    ) {
        self.add(key, what, value, unit, Some(aim));
    }

    fn add(&mut self, key: &str, what: &str, value: f64, unit: &'static str, aim: Option<Aim>) {
        let (key, what) = (key.to_owned(), what.to_owned());
        self.lines.push(Line::Figure { key, what, value, unit, aim });
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
                Line::Note(text) => println!("  ({text})"),
                Line::Figure { what, value, unit, aim, .. } => {
                    let places = if *value < 100.0 { 2 } else { 0 };
                    let aim = aim.map_or_else(String::new, |aim| aim.judge(*value));
                    println!("  {what:<60} {value:>10.places$} {unit:<10}  {aim}");
                }
            }
        }
    }

    /// Writes `bench.json`: the figures by their keys, and `settings`.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let path = path()?;
        std::fs::write(&path, serde_json::to_string_pretty(&self.to_json())?)
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    fn to_json(&self) -> Value {
        let mut figures = json!({});
        for line in &self.lines {
            if let Line::Figure { key, value, .. } = line {
                match key.split_once('/') {
                    Some((object, member)) => figures[object][member] = json!(value),
                    None => figures[key] = json!(value),
                }
            }
        }
        let settings: Map<String, Value> =
            self.settings.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        figures["settings"] = settings.into();
        figures
    }
}

/// Returns the place of the figures: the target directory that this program was built into.
fn path() -> anyhow::Result<PathBuf> {
    let folder = testkit::program_folder()?;
    let target = folder.parent().context("the program lies in no target directory")?;
    Ok(target.join("bench.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_saved_in_the_target_directory_in_use() {
        let program = std::env::current_exe().unwrap();
        // The target directory, the profile, `deps`, the program.
        let target = program.ancestors().nth(3).unwrap();
        assert_eq!(path().unwrap(), target.join("bench.json"));
    }

    #[test]
    fn figures_are_saved_by_their_keys() {
        let mut report = Report::new(vec![("memory".to_owned(), "little".to_owned())]);
        report.heading("Reads");
        report.figure("read_per_s", "reads", 7.0, "reads/s");
        report.figure("rss_mb/one", "one", 1.0, "MB");
        report.figure("rss_mb/two", "two", 2.0, "MB");
        let expected = json!({
            "read_per_s": 7.0,
            "rss_mb": { "one": 1.0, "two": 2.0 },
            "settings": { "memory": "little" },
        });
        assert_eq!(report.to_json(), expected);
    }

    #[test]
    fn an_aim_is_met_at_its_bound() {
        assert_eq!(Aim::AtLeast(0.8).judge(0.8), "aim ≥ 0.8: met");
        assert_eq!(Aim::AtLeast(0.8).judge(0.79), "aim ≥ 0.8: missed");
        assert_eq!(Aim::AtMost(20.0).judge(20.0), "aim ≤ 20: met");
        assert_eq!(Aim::AtMost(20.0).judge(f64::NAN), "aim ≤ 20: missed");
    }
}

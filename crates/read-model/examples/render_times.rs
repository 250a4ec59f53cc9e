//! Processor time and memory that unkind texts of the greatest length take to render. Each runs in a process of its own.
//!
//! `cargo run --release -p read-model --example render_times`

use std::io::{Result, Write as _, stdout};
use std::process::Command;

use read_model::markdown::to_html;

/// Greatest length of the content of a post, in bytes.
const LENGTH: usize = 262_144;

/// Repeated up to that length, behind what comes first.
const TEXTS: [(&str, &str); 78] = [
    ("", "<"),
    ("", "["),
    ("", "*"),
    ("", "_"),
    ("", "`"),
    ("", "|"),
    ("", ">"),
    ("", "&"),
    ("", "[^1]"),
    ("[^1]: x\n\n", "[^1]"),
    ("", "http://a "),
    ("", "> "),
    ("", "- "),
    ("", "1. "),
    ("", "> - "),
    ("", "]"),
    ("", "_a "),
    ("", "*a **b "),
    ("", "[a]("),
    ("", "!["),
    ("", "[a]: b\n"),
    ("", "\""),
    ("", "`a``"),
    ("", "a|\n-|\n"),
    ("", "a|\n-|\n\n"),
    ("", "|a|b\n|-|-\n|"),
    ("|a|\n|-|\n", "|a|\n"),
    ("|a|\n|-|\n", "a\n"),
    ("", "a\n\n"),
    ("", "#\n"),
    ("", "\\"),
    ("", "~~"),
    ("", "~~a "),
    ("", "[^a]: b\n"),
    ("", "https://"),
    ("", "a@b.c "),
    ("", "a@"),
    ("", "www.a.b "),
    ("", "www."),
    ("", "<!--"),
    ("", "<?"),
    ("", "<![CDATA["),
    ("", "<a href=\""),
    ("", "<b>"),
    ("", "<a@b.c>"),
    ("", "<http://a>"),
    ("", "\t"),
    ("", "\u{0}"),
    ("", "\u{301}"),
    ("", "\u{a0}"),
    ("", "©"),
    ("", "    "),
    ("", "    a\n"),
    ("", "- a\n\n"),
    ("", "- a\n"),
    ("", "1. a\n"),
    ("", "> a\n"),
    ("", "> a\n\n"),
    ("", "![a](b)"),
    ("", "![a](http://b)"),
    ("", "[a](b)"),
    ("", "***a** b* "),
    ("", "[a][b]"),
    ("[b]: c\n\n", "[b]"),
    ("[b]: http://c\n\n", "![b] "),
    ("", "\r"),
    ("", ":"),
    ("", "- [ ] "),
    ("", "- [ ] a\n"),
    ("", "**a*"),
    ("", "*a*"),
    ("", "*a* "),
    ("", "`a` "),
    ("", "a  \n"),
    ("", "---\n"),
    ("", "```\n"),
    ("", "&amp;"),
    ("", "[^a]\n\n[^a]: b\n\n"),
];

/// Lists, and quotes in lists, each one level deeper than the one before.
fn stairs(step: &str) -> String {
    let mut text = String::new();
    for depth in 0.. {
        if text.len() + step.len() * depth + 4 > LENGTH {
            break;
        }
        text += &step.repeat(depth);
        text += "- a\n";
    }
    text
}

/// Distinct footnotes, each named once.
fn footnotes() -> String {
    let mut text = String::new();
    for number in 0.. {
        text += &format!("[^{number}]\n\n[^{number}]: a\n\n");
        if text.len() > LENGTH {
            break;
        }
    }
    text.truncate(LENGTH);
    text
}

fn text(number: usize) -> Option<(String, String)> {
    if let Some((first, part)) = TEXTS.get(number) {
        let count = (LENGTH - first.len()) / part.len();
        return Some((format!("{first}{}", part.repeat(count)), format!("{first:?} {part:?}")));
    }
    match number - TEXTS.len() {
        0 => Some((stairs("  "), "lists in lists".to_owned())),
        1 => Some((stairs("> "), "lists in quotes".to_owned())),
        2 => Some((footnotes(), "footnotes".to_owned())),
        _ => None,
    }
}

fn main() -> Result<()> {
    if let Some(number) = std::env::args().nth(1) {
        let Some((text, name)) = number.parse().ok().and_then(text) else { return Ok(()) };
        let before = peak_kilobytes();
        let (mut slowest, mut form) = (0, "plain");
        // What exceeds a budget is not rendered: the slowest text may be a shorter one.
        for eighths in (1..=8).rev() {
            let length = text.floor_char_boundary(text.len() * eighths / 8);
            let begun = processor_milliseconds();
            let html = to_html(&text[..length]);
            slowest = slowest.max(processor_milliseconds() - begun);
            if !html.starts_with("<div class=\"plain\">") {
                form = "";
            }
        }
        let grown = (peak_kilobytes() - before) / 1024;
        return writeln!(stdout(), "{slowest:>6} ms {grown:>4} MiB {form:<6} {name}");
    }
    for number in (0..).take_while(|number| text(*number).is_some()) {
        Command::new(std::env::current_exe()?).arg(number.to_string()).status()?;
    }
    Ok(())
}

/// Processor time that this process has used, in steps of 10 ms.
fn processor_milliseconds() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    10 * fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>()
}

fn peak_kilobytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

//! The text of a post as HTML that may stand in a page of ours: Markdown (CommonMark with tables, task lists,
//! strikethrough, bare addresses and footnotes), rendered, then cleaned.
//!
//! Whoever writes a post may write anything. Tags of HTML are shown as the text they are, so all that the
//! cleaner sees was made by the renderer, and it is still asked about every text with an address or a tag in
//! it: two programs must err at the same place before such a text harms a reader. What is nothing but plain
//! text is not shown to it: of that the renderer writes no tag that could do harm, and escapes all others.
//! A text that exceeds a budget (of marks, depth, nodes or size) is shown as it was written instead, since other
//! posts wait behind it. So is one that the renderer or the cleaner panics at. Budgets count, and measure no time:
//! one text always gives the same bytes.

mod clean;
#[cfg(test)]
mod determinism;
mod off_loop;
mod plain;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write};
use std::panic::catch_unwind;
use std::sync::LazyLock;

use comrak::nodes::NodeValue;
use comrak::{Arena, Node, Options, format_html, html, parse_document};

use crate::folding::message;

pub use off_loop::render_all;

/// Maximum number of characters in a text that may begin or end something other than words. Each of them costs
/// the parser a node or a search. Of 262,144 bytes of prose about 10,000 are of this kind, of one large table 30,000.
const MAX_MARKS: usize = 65_536;

/// Maximum number of nodes that come of a text. Each costs the renderer and the cleaner about a microsecond.
const MAX_NODES: usize = 65_536;

/// How deep a text may nest: a quotation in a list in a quotation is three. Browsers nest 512 deep, and the
/// time that a cleaner takes grows with the square of it.
const MAX_DEPTH: usize = 100;

/// How many bytes of HTML may come of one byte of text. Six is what a text of nothing but quotation marks takes.
const MAX_GROWTH: usize = 8;
/// The same for a text of a few words, where one link is most of it.
const SMALL_BYTES: usize = 4096;

static OPTIONS: LazyLock<Options<'static>> = LazyLock::new(|| {
    let mut options = Options::default();
    options.extension.table = true;
    options.extension.tasklist = true;
    options.extension.strikethrough = true;
    options.extension.autolink = true;
    options.extension.footnotes = true;
    options.render.escape = true;
    options
});

/// Renders a text. The same text always gives the same bytes.
pub fn to_html(text: &str) -> String {
    to_html_by(within_budgets, text)
}

/// Renders a text with this renderer, or as it was written where that gives nothing or panics.
fn to_html_by(renderer: fn(&str) -> Option<String>, text: &str) -> String {
    let rendered = catch_unwind(|| renderer(text)).unwrap_or_else(|panic| {
        let why = message(&*panic);
        tracing::error!(
            text.bytes = text.len(),
            "rendering a text panicked, it is shown as written: {why}"
        );
        None
    });
    rendered.unwrap_or_else(|| as_written(text))
}

fn within_budgets(text: &str) -> Option<String> {
    if text.bytes().filter(is_mark).count() > MAX_MARKS {
        return None;
    }
    let limit = MAX_GROWTH * text.len() + SMALL_BYTES;
    let Rendered { html, is_plain } = render(text, limit)?;
    if !is_quickly_written(&html) {
        return None;
    }
    let html = if is_plain { plain::tidy(html) } else { cleaned(&html) };
    (html.len() <= limit).then_some(html)
}

/// Returns `true` for a character at which the parser stops.
fn is_mark(byte: &u8) -> bool {
    b"\n\r\t\0!\"#&()*:<>@[\\]_`|~".contains(byte)
}

/// HTML as the renderer writes it.
struct Rendered {
    html: String,
    /// Whether the cleaner would find nothing in it to take out.
    is_plain: bool,
}

fn cleaned(html: &str) -> String {
    clean::clean(&with_wide_tables(html))
}

/// A table may be wider than a page and then scrolls by itself.
fn with_wide_tables(html: &str) -> String {
    let html = html.replace("<table>", "<div class=\"wide\"><table>");
    html.replace("</table>", "</table></div>")
}

/// `None` if the text nests too deep, has too many nodes, or its HTML grows too long.
fn render(text: &str, limit: usize) -> Option<Rendered> {
    let arena = Arena::new();
    let root = parse_document(&arena, text, &OPTIONS);
    let mut is_plain = true;
    let mut unvisited: Vec<(Node<'_>, usize)> = vec![(root, 0)];
    let mut nodes = 0;
    while let Some((node, depth)) = unvisited.pop() {
        nodes += 1;
        if depth > MAX_DEPTH || nodes > MAX_NODES {
            return None;
        }
        let value = &mut node.data_mut().value;
        if let NodeValue::Heading(heading) = value {
            // The title of the page stands above all headings of its text.
            heading.level = (heading.level + 1).min(6);
        } else if let NodeValue::CodeBlock(block) = value {
            // The language of a program; it would become a class that the cleaner takes out.
            block.info.clear();
        }
        is_plain &= plain::is_plain(value);
        unvisited.extend(node.children().map(|child| (child, depth + 1)));
    }
    let mut html = Bounded { text: String::with_capacity(text.len() * 2), limit };
    format_html(root, &OPTIONS, &mut html).ok()?;
    Some(Rendered { html: html.text, is_plain })
}

/// Before each `&` and each character such as `©` (whose first byte is that of a no-break space), the library that
/// writes HTML looks through the rest of its piece of text for a `<`. For text between two tags that is long and full
/// of them this takes seconds.
fn is_quickly_written(html: &str) -> bool {
    const MAX_BYTES_LOOKED_AT: usize = 1 << 28;
    let looked_at = html.split('<').map(|piece| {
        let stops = piece.bytes().filter(|byte| matches!(byte, b'&' | 0xC2)).count();
        stops.saturating_mul(piece.len())
    });
    looked_at.sum::<usize>() <= MAX_BYTES_LOOKED_AT
}

/// The text itself, its lines and spaces as they are.
fn as_written(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 64);
    escaped.push_str("<div class=\"plain\">");
    // Writing to a string does not fail.
    let _ = html::escape(&mut escaped, text);
    escaped.push_str("</div>\n");
    escaped
}

/// Takes so many bytes and no more.
struct Bounded {
    text: String,
    limit: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len() + text.len() > self.limit {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

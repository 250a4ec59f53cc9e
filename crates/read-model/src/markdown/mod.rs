//! The text of a post as HTML that may stand in a page of ours: Markdown (CommonMark with tables, task lists,
//! strikethrough, bare addresses and footnotes), rendered, then cleaned.
//!
//! Whoever writes a post may write anything. Tags of HTML are shown as the text they are, so all that the
//! cleaner sees was made by the renderer, and it is still asked: two programs must err at the same place
//! before a reader is harmed. What nests or swells out of measure is shown as it was written instead, since a
//! post is rendered where other posts wait behind it.

mod clean;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write};
use std::sync::LazyLock;

use comrak::nodes::NodeValue;
use comrak::{Arena, Node, Options, format_html, html, parse_document};

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
    let limit = MAX_GROWTH * text.len() + SMALL_BYTES;
    render(text, limit)
        .filter(|html| is_quickly_written(html))
        // A table may be wider than a page and then scrolls by itself.
        .map(|html| html.replace("<table>", "<div class=\"wide\"><table>"))
        .map(|html| html.replace("</table>", "</table></div>"))
        .map(|html| clean::clean(&html))
        .filter(|html| html.len() <= limit)
        .unwrap_or_else(|| as_written(text))
}

/// `None` if the text nests too deep or its HTML grows too long.
fn render(text: &str, limit: usize) -> Option<String> {
    let arena = Arena::new();
    let root = parse_document(&arena, text, &OPTIONS);
    let mut unvisited: Vec<(Node<'_>, usize)> = vec![(root, 0)];
    while let Some((node, depth)) = unvisited.pop() {
        if depth > MAX_DEPTH {
            return None;
        }
        // The title of the page stands above all headings of its text.
        if let NodeValue::Heading(heading) = &mut node.data_mut().value {
            heading.level = (heading.level + 1).min(6);
        }
        unvisited.extend(node.children().map(|child| (child, depth + 1)));
    }
    let mut html = Bounded { text: String::with_capacity(text.len() * 2), limit };
    format_html(root, &OPTIONS, &mut html).ok()?;
    Some(html.text)
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

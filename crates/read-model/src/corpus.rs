//! A fixed corpus of events, and the digest of the views that they give.
//!
//! Processes of one version write the same rows. A view that changes without its version would be rewritten
//! back and forth while an old and a new process run side by side.

use domain::post::PostEvent;
use domain::{PostId, Recorded};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::inspection::fields;
use crate::lists::memberships;
use crate::post_page::tests::recorded;
use crate::{Row, VIEW_DIGEST, VIEW_VERSION};

/// Texts with every construct that is rendered in a way of its own.
pub(crate) const TEXTS: [&str; 16] = [
    "",
    "Write *every* **day** & ~~never~~ `always`.\\\nA \"line\"  \nbreak\u{a0}here.",
    "# One\n\n## Two\n\nThree\n===\n\n###### Six\n\n---\n",
    "- a\n- b\n  - c\n\n3. d\n4. e\n\n> quoted\n> > twice",
    "- [ ] to do\n- [x] done\n  - [X] below\n\n1. [ ] numbered",
    "```rust\nfn a() {}\n```\n\n    indented\n\n~~~\n<b>\n~~~",
    "| a | b | c |\n|:--|:-:|--:|\n| 1 | *2* | `3` |\n| [ ] | ![x](https://a.example/x.png) | |",
    "[us](https://a.example/?b=1&c=2 \"t\") <https://a.example> www.a.example a@b.example",
    "https://a.example/b(c) and [a][b] and [b]\n\n[b]: /c 'title'",
    "[x](javascript:alert(1)) [y](data:text/html,z) [z](tel:1) <mailto:a@b.example>",
    "![A cat](https://a.example/cat.jpg \"Tom\") ![none](cat.jpg)",
    "A claim.[^1] Another.[^b] Again.[^1]\n\n[^b]: Ground *b*.\n\n[^1]: Its ground.\n\n[^c]: unused",
    "<b title=\"c\">bold</b>\n\n<div>\n\n*x*\n\n</div>\n\n<script>alert(1)</script>",
    "&lt;b&gt; &copy; &#1; &nbsp; \u{1} \u{0} \u{2028} \u{301}",
    "سلام **دنیا**\n\n- 你好\n- 🎉",
    ">>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>>> x",
];

#[tokio::test]
async fn the_same_events_give_the_views_of_this_version() {
    assert_eq!(
        digest().await,
        VIEW_DIGEST,
        "VIEW_VERSION {VIEW_VERSION} and VIEW_DIGEST do not belong together. Where the same events now give other \
         views, count VIEW_VERSION up once for what is released together. Then run this test again and put the \
         left digest into VIEW_DIGEST. Where no view was meant to change, mend the code instead"
    );
}

/// Digest of all documents and list entries of the corpus, and of the version.
async fn digest() -> String {
    let mut digest = Sha256::new();
    digest.update(VIEW_VERSION.to_be_bytes());
    for (number, history) in histories().into_iter().enumerate() {
        let id =
            PostId(Uuid::from_u128(0x0192_f0c1_2d3e_7f4a_8b5c_0000_0000_0000 + number as u128));
        let fold = |row, event: &Recorded<PostEvent>| Some(Row::fold(row, event, id));
        let events: Vec<_> = (1..).zip(history).map(|(at, event)| recorded(at, event)).collect();
        let row = events.iter().fold(None, fold).unwrap();
        for (field, value) in fields(&row).await.unwrap() {
            digest.update(format!("{field} {}:", value.len()));
            digest.update(value);
        }
        for (list, place) in row.page.iter().flat_map(memberships) {
            digest.update(format!("{list} {place};"));
        }
    }
    format!("{:x}", digest.finalize())
}

/// The events of each post: every kind of event, and every text.
fn histories() -> Vec<Vec<Value>> {
    let drafted = |content: Value| json!({"drafted": {"author": {"id": "anne", "name": "Anne"}, "content": content}});
    let plain = || drafted(json!({"title": "On writing", "content": "Begin.", "tags": ["craft"]}));
    let published = |slug: &str| json!({"published": {"slug": slug}});
    let revised = |changes: Value| json!({"revised": {"changes": changes}});
    let mut histories = vec![
        vec![plain()],
        vec![plain(), published("a"), json!({"unpublished": {}}), published("a")],
        vec![plain(), published("b"), json!({"unpublished": {}})],
        vec![plain(), published("c"), revised(json!({"title": "On reading", "tags": []}))],
        vec![plain(), published("d"), revised(json!({"summary": "Short"}))],
        vec![plain(), published("e"), revised(json!({"tags": ["art", "craft"]}))],
        vec![plain(), published("f"), json!({"revised": {"changes": {}, "slug": "g"}})],
        vec![plain(), revised(json!({"content": "Go *on*."})), published("h")],
        vec![plain(), published("i"), json!({"deleted": {}})],
        vec![
            json!({"drafted": {
                "author": {"id": "alias|bob"},
                "content": {"title": "Ünïcode \"&\"", "content": "x", "summary": "", "tags": []},
                "slug": "j",
            }}),
            published("j"),
        ],
    ];
    for (number, text) in TEXTS.iter().enumerate() {
        let content = json!({"title": "On texts", "content": text, "tags": ["texts"]});
        histories.push(vec![drafted(content), published(&format!("text-{number}"))]);
    }
    histories
}

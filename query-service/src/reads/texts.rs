//! The texts of posts as HTML: as Redis keeps them, or rendered anew where it has none that belongs to the page.

use axum::http::HeaderValue;
use bytes::Bytes;
use domain::{Position, PostId};
use futures::future::join_all;
use read_model::{PostCard, markdown};

use super::{Marks, ReadError, Reads};

/// So that where the texts are long, not many are read in vain.
const TEXTS_AT_A_TIME: usize = 5;

/// The text of one post among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TextOf {
    /// As HTML.
    Whole(Bytes),
    /// The beginning, without tags, of a text for which there is no room.
    Excerpt(String),
    /// Its page has changed or gone meanwhile, or cannot be read.
    Missing,
}

impl Reads {
    /// The text of each of these pages, where Redis has it: of just this page, no older and no newer.
    pub(crate) async fn kept_texts(&self, cards: &[PostCard]) -> Vec<Option<Bytes>> {
        let ids: Vec<PostId> = cards.iter().map(|card| card.id).collect();
        let found = self.warm.answer(self.warm.views.texts(&ids)).await.unwrap_or_default();
        let mut texts = found.into_iter();
        let text = |card: &PostCard| {
            let found = texts.next()?;
            self.warm.valid(found.watermark)?;
            let (of_card, html) = found.text?;
            let is_of_page = serde_json::from_slice::<PostCard>(&of_card).ok()? == *card;
            is_of_page.then_some(html)
        };
        cards.iter().map(text).collect()
    }

    /// The text of each of these pages. One that does not fit into what others leave of so many bytes is cut to an
    /// excerpt.
    pub(crate) async fn texts(&self, cards: &[PostCard], max_bytes: usize) -> Vec<TextOf> {
        let (mut texts, mut bytes) = (Vec::with_capacity(cards.len()), 0);
        for cards in cards.chunks(TEXTS_AT_A_TIME) {
            for text in self.all_texts(cards).await {
                texts.push(match text {
                    Some(html) if bytes + html.len() <= max_bytes => {
                        bytes += html.len();
                        TextOf::Whole(html)
                    }
                    Some(html) => TextOf::Excerpt(excerpt(&String::from_utf8_lossy(&html))),
                    None => TextOf::Missing,
                });
            }
        }
        texts
    }

    async fn all_texts(&self, cards: &[PostCard]) -> Vec<Option<Bytes>> {
        let stored = self.kept_texts(cards).await;
        let text = async |(card, stored): (&PostCard, Option<Bytes>)| match stored {
            Some(html) => Some(html),
            // Each by itself, so that one which takes too long or cannot be read costs no other its text.
            None => self.folded_text(card).await,
        };
        join_all(cards.iter().zip(stored).map(text)).await
    }

    async fn folded_text(&self, card: &PostCard) -> Option<Bytes> {
        let folded = self.fold_up_to(Position::ZERO, vec![card.id], Marks::new()).await.ok()?;
        let page = folded.rows.get(&card.id)?.page.as_ref()?;
        if serde_json::from_slice::<PostCard>(&page.card).ok()? != *card {
            return None;
        }
        let content = serde_json::from_slice(&page.content).ok()?;
        render(content).await.ok()
    }

    /// The text of a page with this tag, rendered once for all who want it at the same time.
    pub(crate) async fn rendered(
        &self,
        post: PostId,
        etag: &HeaderValue,
        content: String,
    ) -> Result<Bytes, ReadError> {
        let rendered = self.renderings.join(&(post, etag.clone()), || render(content)).await;
        rendered.unwrap_or(Err(ReadError::Unreadable))
    }
}

/// Renders the text of a post off the event loop, where other readers do not wait for it.
async fn render(content: String) -> Result<Bytes, ReadError> {
    let html = markdown::render_all([content]).await;
    html.map(|html| html.concat().into()).map_err(|_ended| ReadError::Unavailable)
}

/// Returns the beginning of a text without its tags.
fn excerpt(html: &str) -> String {
    const CHARS: usize = 280;
    // Tags take most of what this leaves out.
    const BYTES_READ: usize = 8192;
    let html = &html[..html.floor_char_boundary(BYTES_READ)];
    let mut text = String::new();
    for piece in html.split('<') {
        text += piece.split_once('>').map_or(piece, |(_tag, text)| text);
    }
    for (entity, char) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&nbsp;", " "), ("&amp;", "&")]
    {
        text = text.replace(entity, char);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ");
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", text[..end].trim_end()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_beginning_of_the_text_without_tags() {
        let html = "<h2>One &amp; two</h2>\n<p>A <a href=\"b\">link</a> &lt;b&gt;.</p>\n";
        assert_eq!(excerpt(html), "One & two A link <b>.");
        let long = excerpt(&"<p>word &amp;lt;</p>\n".repeat(10_000));
        assert_eq!(long.chars().count(), 280);
        assert!(long.starts_with("word &lt; word") && long.ends_with('…'), "{long}");
        assert_eq!(excerpt(&"é".repeat(8192)).chars().count(), 281);
    }
}

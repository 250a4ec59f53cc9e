//! The texts of posts as HTML: as Redis keeps them, or rendered anew where it has none that belongs to the page.

use std::collections::HashMap;

use axum::http::HeaderValue;
use bytes::Bytes;
use domain::{Position, PostId};
use read_model::{PostCard, StoredPage, markdown};

use super::{Marks, ReadError, Reads, Refold};

/// So that where the texts are long, not many are read in vain.
const TEXTS_AT_A_TIME: usize = 5;

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

    /// The texts of the first of these pages, as many as make up no more than so many bytes. `None` for one that
    /// has changed or gone meanwhile, or cannot be read.
    pub(crate) async fn texts(
        &self,
        cards: &[PostCard],
        most_bytes: usize,
    ) -> Result<Vec<Option<Bytes>>, ReadError> {
        let (mut texts, mut bytes) = (vec![], 0);
        for cards in cards.chunks(TEXTS_AT_A_TIME) {
            for text in self.all_texts(cards).await? {
                bytes += text.as_ref().map_or(0, Bytes::len);
                if bytes > most_bytes {
                    return Ok(texts);
                }
                texts.push(text);
            }
        }
        Ok(texts)
    }

    async fn all_texts(&self, cards: &[PostCard]) -> Result<Vec<Option<Bytes>>, ReadError> {
        let mut texts = self.kept_texts(cards).await;
        let lacking = || cards.iter().zip(&texts).filter(|(_, text)| text.is_none());
        let missing: Vec<PostId> = lacking().map(|(card, _)| card.id).collect();
        let mut found = HashMap::new();
        let take = |refold: &Refold| {
            for card in cards {
                let page = refold.rows.get(&card.id).and_then(|row| row.page.as_ref());
                let is_same = |page: &&StoredPage| {
                    serde_json::from_slice::<PostCard>(&page.card).is_ok_and(|of| of == *card)
                };
                found.extend(page.filter(is_same).map(|page| (card.id, page.content.clone())));
            }
        };
        self.fold_all(Position::ZERO, &missing, &Marks::new(), take).await?;
        for (card, text) in cards.iter().zip(&mut texts) {
            let content = found.remove(&card.id);
            if let Some(Ok(content)) = content.map(|content| serde_json::from_slice(&content)) {
                *text = Some(render(content).await?);
            }
        }
        Ok(texts)
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

/// Renders the text of a post, where other readers do not have to wait for it: a long one takes a while.
async fn render(content: String) -> Result<Bytes, ReadError> {
    let html = markdown::render_all([content]).await;
    html.map(|html| html.concat().into()).map_err(|_ended| ReadError::Unavailable)
}

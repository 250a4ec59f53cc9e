//! What the pages for people know of the site they are on.

use std::sync::Arc;

use domain::post::Status;
use read_model::PostCard;

/// The site. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// Without a slash at its end.
    public_url: Arc<str>,
}

impl Site {
    pub(crate) const NAME: &'static str = "Inkstream";
    pub(crate) const FEED: &'static str = "/feed.atom";

    pub(crate) fn new(public_url: &str) -> Self {
        Self { public_url: public_url.into() }
    }

    /// The whole address of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.public_url)
    }
}

/// Where a post is read: by its slug, or a draft by its id.
pub(crate) fn path_of(card: &PostCard) -> String {
    match &card.slug {
        Some(slug) if card.status == Status::Published => format!("/posts/{slug}"),
        _ => format!("/posts/{}", card.id),
    }
}

/// The name that an author goes by.
pub(crate) fn name_of(card: &PostCard) -> &str {
    card.author.name.as_deref().unwrap_or(&card.author.id)
}

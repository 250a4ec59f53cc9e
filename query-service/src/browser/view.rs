//! What the templates are filled with.

use askama::Template;
use axum::http::StatusCode;
use chrono::{DateTime, SecondsFormat, Utc};
use domain::post::{Status, Tag, TagSlug};
use http_api::Problem;
use read_model::PostCard;

use super::assets::{ICON, STYLE};
use crate::site::{Site, name_of, path_of};

/// What every page has.
struct Frame {
    site: &'static str,
    style: String,
    icon: String,
    feed: &'static str,
}

impl Frame {
    fn new() -> Self {
        Self { site: Site::NAME, style: STYLE.path(), icon: ICON.path(), feed: Site::FEED }
    }
}

/// A date, for people and for programs.
struct Date {
    text: String,
    machine: String,
}

impl From<DateTime<Utc>> for Date {
    fn from(at: DateTime<Utc>) -> Self {
        let machine = at.to_rfc3339_opts(SecondsFormat::Secs, true);
        Self { text: at.format("%-d %B %Y").to_string(), machine }
    }
}

/// A post, as its page and its card show it.
struct Card {
    path: String,
    title: String,
    summary: Option<String>,
    author: String,
    author_path: String,
    tags: Vec<TagLink>,
    published: Option<Date>,
    /// If that is another day.
    updated: Option<Date>,
    is_draft: bool,
}

/// A tag as its author spells it, and its slug for the address of its list.
struct TagLink {
    name: String,
    slug: String,
}

impl TagLink {
    fn of(tag: &Tag) -> Option<Self> {
        Some(Self { name: tag.as_str().to_owned(), slug: tag.slug()?.into_string() })
    }
}

impl From<&PostCard> for Card {
    fn from(card: &PostCard) -> Self {
        let changed_since = |at: &DateTime<Utc>| at.date_naive() != card.updated_at.date_naive();
        let is_changed = card.published_at.as_ref().is_some_and(changed_since);
        Self {
            path: path_of(card),
            title: card.title.clone(),
            summary: card.summary.clone(),
            author: name_of(card).to_owned(),
            // Of what an id may hold, only this must not stand in a query as it is.
            author_path: format!("/posts?author={}", card.author.id.replace('|', "%7C")),
            tags: card.tags.iter().filter_map(TagLink::of).collect(),
            published: card.published_at.map(Date::from),
            updated: is_changed.then(|| card.updated_at.into()),
            is_draft: card.status == Status::Draft,
        }
    }
}

#[derive(Template)]
#[template(path = "post.html")]
pub(super) struct Post<'a> {
    frame: Frame,
    post: Card,
    canonical: String,
    /// HTML that has been cleaned.
    text: &'a str,
}

impl<'a> Post<'a> {
    pub(super) fn new(site: &Site, card: &PostCard, text: &'a str) -> Self {
        let post = Card::from(card);
        Self { frame: Frame::new(), canonical: site.url(&post.path), post, text }
    }

    pub(super) fn rendered(&self) -> Result<String, Problem> {
        rendered(self)
    }
}

#[derive(Template)]
#[template(path = "posts.html")]
pub(super) struct Posts {
    frame: Frame,
    posts: Vec<Card>,
    /// What they have in common.
    heading: String,
    is_filtered: bool,
    /// It is not the first page.
    is_continued: bool,
    canonical: String,
    next: Option<String>,
}

impl Posts {
    /// A page of the list that this query asks for.
    pub(super) fn new(site: &Site, cards: &[PostCard], query: &str, next: Option<String>) -> Self {
        let filter = |name| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(key, _)| key == name).map(|(_, value)| value)
        };
        let author = cards.first().map_or("this author", name_of);
        let heading = match (filter("tag"), filter("author")) {
            (Some(tag), _) => format!("Posts about {}", spelling(cards, &tag)),
            (None, Some(_)) => format!("Posts by {author}"),
            (None, None) => "Posts".to_owned(),
        };
        let path = if query.is_empty() { "/posts".to_owned() } else { format!("/posts?{query}") };
        Self {
            frame: Frame::new(),
            heading,
            is_filtered: filter("tag").or(filter("author")).is_some(),
            is_continued: filter("cursor").is_some(),
            canonical: site.url(&path),
            posts: cards.iter().map(Card::from).collect(),
            next,
        }
    }

    pub(super) fn rendered(&self) -> Result<String, Problem> {
        rendered(self)
    }
}

/// Returns a tag as the first of these posts spells it, whatever the address does.
fn spelling(cards: &[PostCard], asked: &str) -> String {
    let slug = TagSlug::of(asked).ok();
    let is_asked = |tag: &&Tag| tag.slug() == slug;
    let tag = cards.first().and_then(|card| card.tags.iter().find(is_asked));
    tag.map_or_else(|| asked.replace('-', " "), |tag| tag.as_str().to_owned())
}

#[derive(Template)]
#[template(path = "problem.html")]
pub(super) struct Refusal {
    frame: Frame,
    heading: &'static str,
    detail: String,
    status: u16,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, detail: &str) -> Self {
        let heading = match status {
            StatusCode::NOT_FOUND => "Not here",
            StatusCode::GONE => "Gone",
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "Not for everybody",
            StatusCode::SERVICE_UNAVAILABLE => "Not at the moment",
            status if status.is_server_error() => "Something went wrong",
            _ => "That cannot be answered",
        };
        Self { frame: Frame::new(), heading, detail: sentence(detail), status: status.as_u16() }
    }

    pub(super) fn rendered(&self) -> Result<String, Problem> {
        rendered(self)
    }
}

/// The details of problems begin in lower case and end without a period.
fn sentence(detail: &str) -> String {
    let mut chars = detail.chars();
    chars
        .next()
        .map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

fn rendered(template: &impl Template) -> Result<String, Problem> {
    template.render().map_err(|error| {
        tracing::error!("A page cannot be made: {error}");
        Problem::internal()
    })
}

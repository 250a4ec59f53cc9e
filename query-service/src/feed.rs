//! `GET /feed.atom`: the latest posts, for programs that tell people when there is something new (RFC 4287).

use std::ops::Range;
use std::time::{Duration, Instant};

use atom_syndication::{Category, Content, Entry, Feed, FixedDateTime, Link, Person, Text};
use axum::extract::State;
use axum::response::Response;
use chrono::DateTime;
use domain::post::Tag;
use http_api::Problem;
use read_model::{ListName, PostCard};

use crate::answer::IfNoneMatch;
use crate::documents::{Document, Origin};
use crate::reader::Reader;
use crate::reads::{ReadError, TextOf};
use crate::routes::Service;
use crate::site::{Site, name_of, path_of};
use crate::xml;

const ENTRIES: usize = 20;

/// Maximum size of all texts of a feed. A text that does not fit is cut to an excerpt.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// A feed is built for each reader, or once for those who ask at the same time.
const LIFETIME: Duration = Duration::ZERO;

pub(crate) async fn feed(
    State(service): State<Service>,
    reader: Reader,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let shown = service.feeds.get(&service, reader.token(), LIFETIME, build).await?;
    let shown = shown.stale_if(reader.shows_unknown_token());
    let caching = reader.audience().cache_control();
    Ok(shown.unless_known(&known, "feed", "application/atom+xml; charset=utf-8", caching))
}

async fn build(service: Service) -> Result<Document, ReadError> {
    let begun = Instant::now();
    let list = service.reads.list(&ListName::Published, None, ENTRIES, None).await?;
    let origin = Origin::of(&list, begun)?;
    let cards: Result<Vec<PostCard>, _> =
        list.cards.iter().map(|(_, card)| serde_json::from_slice(card)).collect();
    let cards = cards.map_err(|_| ReadError::Unreadable)?;
    let texts = service.reads.texts(&cards, MAX_TEXT_BYTES).await;
    let is_whole = texts.iter().all(|text| !matches!(text, TextOf::Missing));
    let xml = xml::allowed(document(&service.site, &cards, &texts).to_string());
    let entries = cards.iter().map(|card| card.id).zip(ranges(&xml)).collect();
    let document = Document::new(xml, entries, origin);
    Ok(if is_whole { document } else { document.lacking() })
}

/// The bytes of each entry. What stands in them is escaped, so no text looks like the tag of an entry.
fn ranges(xml: &str) -> impl Iterator<Item = Range<usize>> {
    const END: &str = "</entry>";
    let starts = xml.match_indices("<entry>").map(|(start, _)| start);
    let ends = xml.match_indices(END).map(|(start, _)| start + END.len());
    starts.zip(ends).map(|(start, end)| start..end)
}

fn document(site: &Site, cards: &[PostCard], texts: &[TextOf]) -> Feed {
    let entries = cards.iter().zip(texts).map(|(card, text)| entry(site, card, text));
    let entries: Vec<Entry> = entries.collect();
    // Where there is nothing yet, nothing has changed since the beginning.
    let updated = entries.iter().map(|entry| entry.updated).max();
    let link = |rel: &str, path, media_type: &str| Link {
        href: site.url(path),
        rel: rel.to_owned(),
        mime_type: Some(media_type.to_owned()),
        ..Link::default()
    };
    Feed {
        title: Text::plain(Site::NAME),
        id: site.url(Site::FEED),
        updated: updated.unwrap_or_else(|| DateTime::UNIX_EPOCH.into()),
        links: vec![
            link("self", Site::FEED, "application/atom+xml"),
            link("alternate", "/posts", "text/html"),
        ],
        entries,
        ..Feed::default()
    }
}

fn entry(site: &Site, card: &PostCard, text: &TextOf) -> Entry {
    let address = site.url(&path_of(card));
    let (content, excerpt) = match text {
        TextOf::Whole(html) => {
            let content = Content {
                // Links of the text that name no site are meant from its page.
                base: Some(address.clone()),
                value: Some(String::from_utf8_lossy(html).into_owned()),
                content_type: Some("html".to_owned()),
                ..Content::default()
            };
            (Some(content), None)
        }
        TextOf::Excerpt(excerpt) => (None, Some(excerpt.as_str())),
        TextOf::Missing => (None, None),
    };
    let author = Person {
        name: name_of(card).to_owned(),
        uri: Some(site.url(&format!("/posts?author={}", card.author.id.replace('|', "%7C")))),
        ..Person::default()
    };
    let category = |tag: &Tag| {
        let (term, label) = (tag.slug()?.into_string(), Some(tag.as_str().to_owned()));
        Some(Category { term, label, ..Category::default() })
    };
    Entry {
        title: Text::plain(card.title.as_str()),
        // The address may change, the post stays the same.
        id: format!("urn:uuid:{}", card.id),
        // It moves with the text alone, so a program shows an entry again only where there is something to read.
        updated: FixedDateTime::from(card.updated_at),
        published: card.published_at.map(FixedDateTime::from),
        authors: vec![author],
        categories: card.tags.iter().filter_map(category).collect(),
        links: vec![Link { href: address, ..Link::default() }],
        summary: card.summary.as_deref().or(excerpt).map(Text::plain),
        content,
        ..Entry::default()
    }
}

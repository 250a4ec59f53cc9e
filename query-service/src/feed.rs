//! `GET /feed.atom`: the latest posts, for programs that tell people when there is something new (RFC 4287).

use std::iter;
use std::sync::Arc;

use atom_syndication::{Category, Content, Entry, Feed, FixedDateTime, Link, Person, Text};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use chrono::DateTime;
use domain::post::Tag;
use http_api::{ConsistencyToken, Problem};
use read_model::{ListName, PostCard};

use crate::answer::{IfNoneMatch, VARY, etag_of_bytes};
use crate::freshness::Freshness;
use crate::metrics::count_read;
use crate::reader::Reader;
use crate::reads::ReadError;
use crate::reads::flights::Flights;
use crate::routes::Service;
use crate::site::{Site, name_of, path_of};
use crate::xml;

const ENTRIES: usize = 20;

/// How many bytes of texts a feed holds; the entries behind have a summary alone.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// Feeds that are being made, each for all who ask at the same time.
pub(crate) type Feeds = Flights<(), Result<Arc<Made>, ReadError>>;

#[derive(Debug)]
pub(crate) struct Made {
    xml: Bytes,
    etag: HeaderValue,
    freshness: Freshness,
}

pub(crate) async fn feed(
    State(service): State<Service>,
    reader: Reader,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let made = match reader.token() {
        // They may have to wait for what they have seen, and nobody else has.
        Some(token) => make(&service, Some(token)).await,
        None => {
            let all = service.clone();
            let flight = service.feeds.join(&(), || async move { make(&all, None).await });
            flight.await.unwrap_or(Err(ReadError::Unavailable))
        }
    }?;
    count_read("feed", made.freshness.source.name());
    let headers =
        [(header::CACHE_CONTROL, reader.audience().cache_control()), (header::VARY, VARY)];
    let own = [(header::ETAG, made.etag.clone()), (Freshness::HEADER, made.freshness.to_header())];
    if known.includes(&made.etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers, own).into_response());
    }
    let media_type = [(header::CONTENT_TYPE, "application/atom+xml; charset=utf-8")];
    Ok((headers, own, media_type, Body::from(made.xml.clone())).into_response())
}

async fn make(service: &Service, token: Option<&ConsistencyToken>) -> Result<Arc<Made>, ReadError> {
    let list = service.reads.list(&ListName::Published, None, ENTRIES, token).await?;
    let cards: Result<Vec<PostCard>, _> =
        list.cards.iter().map(|card| serde_json::from_slice(card)).collect();
    let cards = cards.map_err(|_| ReadError::Unreadable)?;
    let texts = service.reads.texts(&cards, MAX_TEXT_BYTES).await?;
    let xml = xml::allowed(document(&service.site, &cards, texts).to_string());
    let etag = etag_of_bytes(xml.as_bytes());
    Ok(Arc::new(Made { xml: xml.into(), etag, freshness: list.freshness }))
}

/// The first of these posts have their texts, the others none.
fn document(site: &Site, cards: &[PostCard], texts: Vec<Option<Bytes>>) -> Feed {
    let texts = texts.into_iter().chain(iter::repeat(None));
    let entries = cards.iter().zip(texts).map(|(card, text)| entry(site, card, text.as_ref()));
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

fn entry(site: &Site, card: &PostCard, text: Option<&Bytes>) -> Entry {
    let address = site.url(&path_of(card));
    let content = text.map(|text| Content {
        // Links of the text that name no site are meant from its page.
        base: Some(address.clone()),
        value: Some(String::from_utf8_lossy(text).into_owned()),
        content_type: Some("html".to_owned()),
        ..Content::default()
    });
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
        updated: FixedDateTime::from(card.updated_at),
        published: card.published_at.map(FixedDateTime::from),
        authors: vec![author],
        categories: card.tags.iter().filter_map(category).collect(),
        links: vec![Link { href: address, ..Link::default() }],
        summary: card.summary.as_deref().map(Text::plain),
        content,
        ..Entry::default()
    }
}

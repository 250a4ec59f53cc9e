//! `GET /feed.atom`: the latest posts, for programs that tell people when there is something new (RFC 4287).

use std::iter;

use atom_syndication::{Category, Content, Entry, Feed, FixedDateTime, Link, Person, Text};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use chrono::DateTime;
use http_api::Problem;
use read_model::{ListName, PostCard};

use crate::answer::{Audience, IfNoneMatch, etag_of_bytes};
use crate::freshness::Freshness;
use crate::metrics::count_read;
use crate::routes::Service;
use crate::site::{Site, name_of, path_of};
use crate::xml;

const ENTRIES: usize = 20;

/// How many bytes of texts a feed holds; the entries behind have a summary alone.
const MAX_TEXT_BYTES: usize = 1 << 20;

pub(crate) async fn feed(
    State(service): State<Service>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let list = service.reads.list(&ListName::Published, None, ENTRIES, None).await?;
    count_read("feed", list.freshness.source.name());
    let cards: Result<Vec<PostCard>, _> =
        list.cards.iter().map(|card| serde_json::from_slice(card)).collect();
    let cards = cards.map_err(|_| Problem::internal())?;
    let texts = service.reads.texts(&cards, MAX_TEXT_BYTES).await?;

    let xml = xml::allowed(document(&service.site, &cards, texts).to_string());
    let etag = etag_of_bytes(xml.as_bytes());
    let is_known = known.includes(&etag);
    let freshness = (Freshness::HEADER, list.freshness.to_header());
    let headers = [(header::CACHE_CONTROL, Audience::Everybody.cache_control())];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, headers, [(header::ETAG, etag)], [freshness])
            .into_response());
    }
    let media_type = HeaderValue::from_static("application/atom+xml; charset=utf-8");
    let own = [(header::ETAG, etag), (header::CONTENT_TYPE, media_type)];
    Ok((headers, own, [freshness], Body::from(xml)).into_response())
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
    let category = |tag: &String| Category { term: tag.clone(), ..Category::default() };
    Entry {
        title: Text::plain(card.title.as_str()),
        // The address may change, the post stays the same.
        id: format!("urn:uuid:{}", card.id),
        updated: FixedDateTime::from(card.updated_at),
        published: card.published_at.map(FixedDateTime::from),
        authors: vec![author],
        categories: card.tags.iter().map(category).collect(),
        links: vec![Link { href: address, ..Link::default() }],
        summary: card.summary.as_deref().map(Text::plain),
        content,
        ..Entry::default()
    }
}

//! `GET /sitemap.xml`: the addresses of the latest 50,000 posts, for search engines (sitemaps.org).

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use chrono::SecondsFormat;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http_api::Problem;
use read_model::{ListName, PostCard};

use crate::freshness::Freshness;
use crate::metrics::count_read;
use crate::reads::{List, ReadError, Reads};
use crate::routes::Service;
use crate::site::{Site, path_of};
use crate::xml;

/// How many addresses one sitemap may hold.
const MAX_ADDRESSES: usize = 50_000;
/// How many are in memory at a time. A reader who is slow makes us read the next ones later.
const AT_A_TIME: usize = 500;

const BEFORE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                      <urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n";
const BEHIND: &str = "</urlset>\n";

pub(crate) async fn sitemap(State(service): State<Service>) -> Result<Response, Problem> {
    // Once the first part is there, the answer has begun. Should a later part fail, the connection ends without
    // the end of the answer, which nobody takes for a shorter sitemap.
    let first = service.reads.list(&ListName::Published, None, AT_A_TIME, None).await?;
    count_read("sitemap", first.freshness.source.name());
    let freshness = first.freshness.to_header();
    let site = service.site.clone();
    let parts = stream::try_unfold(Some((first, 1)), move |part| {
        let service = service.clone();
        async move {
            let Some((list, number)) = part else { return Ok(None) };
            let next = match list.next {
                Some(after) if number < MAX_ADDRESSES / AT_A_TIME => {
                    let reads: &Reads = &service.reads;
                    let list =
                        reads.list(&ListName::Published, Some(after), AT_A_TIME, None).await?;
                    Some((list, number + 1))
                }
                _ => None,
            };
            Ok::<_, ReadError>(Some((list, next)))
        }
    });
    let parts = parts.map_ok(move |list| addresses(&site, &list));
    let whole = stream::iter([Ok(Bytes::from_static(BEFORE.as_bytes()))])
        .chain(parts)
        .chain(stream::iter([Ok(Bytes::from_static(BEHIND.as_bytes()))]));
    let body = Body::from_stream(whole.map_err(|_| "the sitemap ends too early"));
    let headers = [
        (header::CONTENT_TYPE, "application/xml; charset=utf-8"),
        // Made of many reads, and nobody needs it to the minute.
        (header::CACHE_CONTROL, "public, max-age=600"),
    ];
    Ok((headers, [(Freshness::HEADER, freshness)], body).into_response())
}

fn addresses(site: &Site, list: &List) -> Bytes {
    let cards = list.cards.iter().filter_map(|card| serde_json::from_slice::<PostCard>(card).ok());
    let xml = cards.fold(String::new(), |xml, card| {
        let address = site.url(&path_of(&card)).replace('&', "&amp;").replace('<', "&lt;");
        let changed = card.updated_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        xml + &format!("<url><loc>{address}</loc><lastmod>{changed}</lastmod></url>\n")
    });
    xml::allowed(xml).into()
}

//! `GET /sitemap.xml`: the addresses of the latest 50,000 posts, for search engines (sitemaps.org).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use chrono::SecondsFormat;
use http_api::Problem;
use read_model::{ListName, PostCard};

use crate::freshness::{Freshness, Source};
use crate::metrics::count_read;
use crate::reads::flights::Flights;
use crate::reads::{List, ReadError};
use crate::routes::Service;
use crate::site::{Site, path_of};
use crate::xml;

/// How many addresses one sitemap may hold.
const MAX_ADDRESSES: usize = 50_000;
/// How many posts are in memory at a time.
const AT_A_TIME: usize = 500;
/// For how long one is good enough for all who ask. It is made of many reads, and nobody needs it to the minute;
/// and where those take longer than one reader waits, the next one finds it.
const KEPT: Duration = Duration::from_secs(60);

const BEFORE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                      <urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n";
const BEHIND: &str = "</urlset>\n";

/// The sitemap that was made last, and those that are being made, each for all who ask at the same time.
#[derive(Debug, Default)]
pub(crate) struct Sitemaps {
    making: Flights<(), Result<Arc<Made>, ReadError>>,
    last: Mutex<Option<Arc<Made>>>,
}

#[derive(Debug)]
struct Made {
    xml: Bytes,
    /// Of the least fresh of its parts.
    freshness: Freshness,
    /// The earliest life of the store that a part of it is of.
    incarnation: u32,
    begun: Instant,
}

pub(crate) async fn sitemap(State(service): State<Service>) -> Result<Response, Problem> {
    let (made, freshness) = match kept(&service) {
        Some(kept) => kept,
        None => {
            let all = service.clone();
            let flight = service.sitemaps.making.join(&(), || async move { make(&all).await });
            let made = flight.await.unwrap_or(Err(ReadError::Unavailable))?;
            let freshness = made.freshness;
            (made, freshness)
        }
    };
    count_read("sitemap", freshness.source.name());
    let may_keep = if freshness.stale { "no-store" } else { "public, max-age=600" };
    let headers = [
        (header::CONTENT_TYPE, "application/xml; charset=utf-8"),
        (header::CACHE_CONTROL, may_keep),
    ];
    let freshness = [(Freshness::HEADER, freshness.to_header())];
    Ok((headers, freshness, Body::from(made.xml.clone())).into_response())
}

/// The last one, while it is good enough, and how fresh it is by now.
fn kept(service: &Service) -> Option<(Arc<Made>, Freshness)> {
    let last = service.sitemaps.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let made = last
        .filter(|made| made.begun.elapsed() < KEPT && service.reads.is_present(made.incarnation))?;
    let age_seconds = made.begun.elapsed().as_secs();
    let freshness = Freshness { source: Source::Memory, age_seconds, ..made.freshness };
    Some((made, freshness))
}

async fn make(service: &Service) -> Result<Arc<Made>, ReadError> {
    let begun = Instant::now();
    let mut xml = BEFORE.to_owned();
    let mut after = None;
    let (mut freshness, mut incarnation): (Option<Freshness>, _) = (None, u32::MAX);
    for _ in 0..MAX_ADDRESSES / AT_A_TIME {
        let list = service.reads.part_of_whole(&ListName::Published, after, AT_A_TIME).await?;
        xml += &addresses(&service.site, &list);
        incarnation = incarnation.min(list.incarnation);
        freshness = Some(freshness.map_or(list.freshness, |so_far| so_far.and(list.freshness)));
        after = list.next;
        if after.is_none() {
            break;
        }
    }
    xml += BEHIND;
    let freshness = freshness.ok_or(ReadError::Unavailable)?;
    let made = Arc::new(Made { xml: xml.into(), freshness, incarnation, begun });
    if !freshness.stale {
        *service.sitemaps.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
    }
    Ok(made)
}

fn addresses(site: &Site, list: &List) -> String {
    let cards = list.cards.iter().filter_map(|card| serde_json::from_slice::<PostCard>(card).ok());
    let xml = cards.fold(String::new(), |xml, card| {
        let address = site.url(&path_of(&card)).replace('&', "&amp;").replace('<', "&lt;");
        let changed = card.updated_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        xml + &format!("<url><loc>{address}</loc><lastmod>{changed}</lastmod></url>\n")
    });
    xml::allowed(xml)
}

//! `GET /sitemap.xml`: the addresses of the latest 50,000 posts, for search engines (sitemaps.org).

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use chrono::SecondsFormat;
use http_api::Problem;
use read_model::{ListName, PostCard};

use crate::answer::{Audience, IfNoneMatch};
use crate::documents::{Document, Origin};
use crate::reader::Reader;
use crate::reads::ReadError;
use crate::routes::Service;
use crate::site::{Site, path_of};
use crate::xml;

/// How many addresses one sitemap may hold.
const MAX_ADDRESSES: usize = 50_000;
/// How many posts are in memory at a time.
const AT_A_TIME: usize = 500;
/// Lifetime of a sitemap for all whose token it includes. It is made of many reads, and crawlers ask seldom. Where
/// those take longer than one reader waits, the next one finds it.
const KEPT: Duration = Duration::from_secs(60);

const BEFORE: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
                      <urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">\n";
const BEHIND: &str = "</urlset>\n";

pub(crate) async fn sitemap(
    State(service): State<Service>,
    reader: Reader,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let shown = service.sitemaps.get(&service, reader.token(), KEPT, build).await?;
    let shown = shown.stale_if(reader.shows_unknown_token());
    let caching = match reader.audience() {
        Audience::Everybody if !shown.freshness.stale => "public, max-age=600",
        Audience::Everybody => "no-store",
        Audience::OneReader => "private, no-store",
    };
    Ok(shown.unless_known(&known, "sitemap", "application/xml; charset=utf-8", caching))
}

async fn build(service: Service) -> Result<Document, ReadError> {
    let begun = Instant::now();
    let (mut xml, mut entries) = (BEFORE.to_owned(), vec![]);
    let mut after = None;
    let mut origin: Option<Origin> = None;
    for _ in 0..MAX_ADDRESSES / AT_A_TIME {
        let list = service.reads.part_of_whole(&ListName::Published, after, AT_A_TIME).await?;
        let cards = list.cards.iter();
        let cards = cards.filter_map(|(_, card)| serde_json::from_slice::<PostCard>(card).ok());
        for card in cards {
            let start = xml.len();
            xml += &address(&service.site, &card);
            entries.push((card.id, start..xml.len()));
        }
        origin = Some(match origin {
            Some(so_far) => so_far.and(&list)?,
            None => Origin::of(&list, begun)?,
        });
        after = list.next;
        if after.is_none() {
            break;
        }
    }
    xml += BEHIND;
    Ok(Document::new(xml, entries, origin.ok_or(ReadError::Unavailable)?))
}

fn address(site: &Site, card: &PostCard) -> String {
    let address = site.url(&path_of(card)).replace('&', "&amp;").replace('<', "&lt;");
    let changed = card.updated_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    xml::allowed(format!("<url><loc>{address}</loc><lastmod>{changed}</lastmod></url>\n"))
}

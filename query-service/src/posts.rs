//! Posts by their address.

use std::str::FromStr;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use domain::{AuthorId, Position, PostId, Slug};
use http_api::{Actor, PathId, Problem};
use read_model::{StoredPage, StoredRow};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::{Answer, Audience, IfNoneMatch, VARY, etag_of_row};
use crate::freshness::{Freshness, Source};
use crate::reads::Found;
use crate::routes::Service;

/// What stands behind `/posts/`: an id for whoever knows it, a slug for readers.
#[derive(Debug)]
pub(crate) enum Address {
    Id(PostId),
    Slug(Slug),
}

impl FromStr for Address {
    type Err = domain::Invalid;

    fn from_str(text: &str) -> Result<Self, domain::Invalid> {
        text.parse().map(Self::Id).or_else(|_| text.parse().map(Self::Slug))
    }
}

/// `GET /posts/{slug or id}`
pub(crate) async fn page(
    State(service): State<Service>,
    PathId(address): PathId<Address>,
    actor: Option<Actor>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let asked = Asked { address, actor, base: "/posts" };
    answer(&service, &asked, &known, |page, _| Ok(page.to_json())).await
}

/// `GET /post/{slug}`, kept from the article this began with.
pub(crate) async fn article(
    State(service): State<Service>,
    PathId(slug): PathId<Slug>,
    actor: Option<Actor>,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let asked = Asked { address: Address::Slug(slug), actor, base: "/post" };
    answer(&service, &asked, &known, article_json).await
}

/// What one reader wants to see.
struct Asked {
    address: Address,
    actor: Option<Actor>,
    /// Where the slugs of this kind of page stand.
    base: &'static str,
}

/// What a reader may see of a post.
enum Sight<'a> {
    Page {
        page: &'a StoredPage,
        position: Position,
        audience: Audience,
    },
    /// It has another slug by now.
    Moved(&'a Slug),
    Gone,
    /// Nothing: it is not there, or not published.
    Nothing,
}

async fn answer(
    service: &Service,
    asked: &Asked,
    known: &IfNoneMatch,
    to_json: impl FnOnce(&StoredPage, PostId) -> Result<Bytes, Problem>,
) -> Result<Response, Problem> {
    let (id, claimed) = match &asked.address {
        Address::Id(id) => (*id, Position::ZERO),
        Address::Slug(slug) => {
            let claim = service.reads.claim_of(slug).await?.ok_or_else(not_found)?;
            (claim.post_id, claim.position)
        }
    };
    let mut found = service.reads.post(id).await?;
    let unsettled = match asked.sees(&found) {
        Sight::Nothing => true,
        // A row that has not seen the claim would lead from the new slug back to the old one.
        Sight::Moved(_) => !found.includes(claimed),
        Sight::Page { .. } | Sight::Gone => false,
    };
    if unsettled && found.freshness.source == Source::Redis {
        // The post may have been published since. That one is not there, only the log can say.
        found = service.reads.refold(id).await?;
    }

    let freshness = found.freshness;
    match asked.sees(&found) {
        Sight::Page { page, position, audience } => {
            let etag = etag_of_row(found.incarnation, position);
            let answer = Answer { body: to_json(page, id)?, etag, freshness, audience };
            Ok(answer.unless_known(known))
        }
        Sight::Moved(slug) => Ok(asked.moved(slug, freshness)),
        Sight::Gone => Err(Problem::gone("this post was deleted")),
        Sight::Nothing => Err(not_found()),
    }
}

impl Asked {
    fn sees<'a>(&self, found: &'a Found) -> Sight<'a> {
        let Some(StoredRow { position, page }) = &found.row else { return Sight::Nothing };
        let Some(page) = page else { return Sight::Gone };
        let shown = |audience| Sight::Page { page, position: *position, audience };
        match (&self.address, &page.slug) {
            (Address::Slug(slug), Some(current)) if page.published && slug != current => {
                Sight::Moved(current)
            }
            _ if page.published => shown(Audience::of(&self.actor)),
            // A draft has no address yet for anybody but its author.
            (Address::Id(_), _) if self.is_author_of(page) => shown(Audience::OneReader),
            _ => Sight::Nothing,
        }
    }

    fn is_author_of(&self, page: &StoredPage) -> bool {
        #[derive(Deserialize)]
        struct Card {
            author: Author,
        }
        #[derive(Deserialize)]
        struct Author {
            id: AuthorId,
        }
        let Some(actor) = &self.actor else { return false };
        let card = serde_json::from_slice::<Card>(&page.card);
        card.is_ok_and(|card| card.author.id == actor.author_id)
    }

    /// Not for good, whatever the number says: a post may take an earlier slug of its own again. So caches
    /// are told what they are told of the page.
    fn moved(&self, slug: &Slug, freshness: Freshness) -> Response {
        let headers = [
            (header::LOCATION.as_str(), format!("{}/{slug}", self.base)),
            (Freshness::HEADER, freshness.to_header()),
        ];
        let caching = [
            (header::CACHE_CONTROL, Audience::of(&self.actor).cache_control()),
            (header::VARY, VARY),
        ];
        (StatusCode::MOVED_PERMANENTLY, headers, caching).into_response()
    }
}

fn not_found() -> Problem {
    Problem::not_found("no such post is published")
}

fn article_json(page: &StoredPage, id: PostId) -> Result<Bytes, Problem> {
    #[derive(Deserialize)]
    struct Card<'a> {
        #[serde(borrow)]
        title: &'a RawValue,
        #[serde(borrow)]
        slug: &'a RawValue,
    }
    let Card { title, slug } = serde_json::from_slice(&page.card).map_err(|error| {
        tracing::error!(post.id = %id, "The card of post {id} cannot be read: {error}");
        Problem::internal()
    })?;
    let before = format!("{{\"uid\":\"{id}\",\"title\":{title},\"content\":");
    let behind = format!(",\"slug\":{slug}}}");
    Ok([before.as_bytes(), &page.content, behind.as_bytes()].concat().into())
}

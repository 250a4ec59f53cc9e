//! Posts by their address.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use domain::{Claim, Position, PostId, Slug};
use http_api::{PathId, PostAddress as Address, Problem};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::answer::{Answer, Audience, IfNoneMatch, VARY};
use crate::demand::Demand;
use crate::freshness::{Freshness, Source};
use crate::metrics::{STALE, count_read};
use crate::page_cache::Seen;
use crate::post::{Page, Sight};
use crate::reader::Reader;
use crate::reads::ReadError;
use crate::routes::Service;

/// `GET /posts/{slug or id}`
pub(crate) async fn page(
    State(service): State<Service>,
    PathId(address): PathId<Address>,
    uri: Uri,
    reader: Reader,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let asked = Asked { address, reader, base: "/posts", query: query(&uri) };
    answer(&service, &asked, &known, |page, _| Ok(page.body.clone())).await
}

/// The same for whoever is like everybody.
pub(crate) async fn page_for_everybody(
    service: &Service,
    address: Address,
    uri: &Uri,
    known: &IfNoneMatch,
) -> Response {
    let (reader, query) = (Reader::anybody(), query(uri));
    let asked = Asked { address, reader, base: "/posts", query };
    answer(service, &asked, known, |page, _| Ok(page.body.clone())).await.into_response()
}

/// `GET /post/{slug}`, kept from the article this began with.
pub(crate) async fn article(
    State(service): State<Service>,
    PathId(slug): PathId<Slug>,
    uri: Uri,
    reader: Reader,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let address = Address::Slug(slug);
    let asked = Asked { address, reader, base: "/post", query: query(&uri) };
    answer(&service, &asked, &known, article_json).await
}

/// What one reader wants to see.
struct Asked {
    address: Address,
    reader: Reader,
    /// Where the slugs of this kind of page stand.
    base: &'static str,
    /// Query string of the request.
    query: Option<String>,
}

/// Result of a look-up of an address.
struct AtAddress {
    id: PostId,
    seen: Seen,
    /// The claim of the slug that was asked for is in it. What lacks it is shown in place: it would lead back to
    /// an earlier slug.
    has_claim: bool,
}

fn query(uri: &Uri) -> Option<String> {
    uri.query().map(str::to_owned)
}

async fn answer(
    service: &Service,
    asked: &Asked,
    known: &IfNoneMatch,
    to_json: impl FnOnce(&Page, PostId) -> Result<Bytes, Problem>,
) -> Result<Response, Problem> {
    let AtAddress { id, seen: Seen { post, freshness }, has_claim } =
        match asked.look(service).await {
            Ok(Ok(found)) => match asked.newer_copy(service, &found.seen) {
                Some(copy) => {
                    count_read("page", STALE);
                    copy
                }
                None => {
                    count_read("page", found.seen.freshness.source.name());
                    found
                }
            },
            Ok(Err(source)) => return Ok(asked.nothing_there(source)),
            Err(ReadError::Unavailable) => {
                let copy = asked.stale_copy(service).ok_or(ReadError::Unavailable)?;
                count_read("page", STALE);
                copy
            }
            Err(error @ (ReadError::Withheld | ReadError::Unreadable)) => return Err(error.into()),
        };
    let freshness = freshness.stale_if(asked.reader.shows_unknown_token());
    match &post.sight {
        Sight::Page(page) => match asked.elsewhere(page).filter(|_| has_claim) {
            Some(slug) => asked.moved(slug, freshness),
            None => {
                let audience =
                    if page.is_draft { Audience::OneReader } else { asked.reader.audience() };
                let body = to_json(page, id)?;
                let answer = Answer { body, etag: page.etag.clone(), freshness, audience };
                Ok(answer.unless_known(known))
            }
        },
        Sight::Gone => Ok(refused(Problem::gone("this post was deleted"), freshness)),
        Sight::Nothing => Ok(asked.nothing_there(freshness.source)),
    }
}

/// Something was read, and that says how fresh it was, too.
fn refused(problem: Problem, freshness: Freshness) -> Response {
    ([(Freshness::HEADER, freshness.to_header())], problem).into_response()
}

impl Asked {
    /// The post at the address as this reader may see it; if the slug names none, who says so.
    async fn look(&self, service: &Service) -> Result<Result<AtAddress, Source>, ReadError> {
        let (id, claimed) = match &self.address {
            Address::Id(id) => (*id, Position::ZERO),
            Address::Slug(slug) => match self.claim(service, slug).await? {
                Ok(claim) => (claim.post_id, claim.position),
                Err(source) => return Ok(Err(source)),
            },
        };
        let seen = self.post(service, id).await?;
        let is_settled = match &seen.post.sight {
            Sight::Page(page) => self.elsewhere(page).is_none(),
            Sight::Gone => true,
            Sight::Nothing => false,
        };
        let has_claim = seen.post.includes(claimed);
        if is_settled || has_claim {
            return Ok(Ok(AtAddress { id, seen, has_claim }));
        }
        // What has not seen the claim would lead from the new slug back to the old one, or nowhere.
        let seen = Box::pin(self.refold(service, id, claimed)).await?;
        let has_claim = seen.post.includes(claimed);
        Ok(Ok(AtAddress { id, seen, has_claim }))
    }

    async fn claim(
        &self,
        service: &Service,
        slug: &Slug,
    ) -> Result<Result<Claim, Source>, ReadError> {
        let read = || {
            let (reads, slug) = (service.reads.clone(), slug.clone());
            async move { reads.claim_of(&slug).await }
        };
        let memory = &service.memory;
        if let Some(claim) = memory.known_claim(slug.as_str()) {
            return Ok(Ok(claim));
        }
        match self.reader.audience() {
            Audience::Everybody => Box::pin(memory.claim(slug, read)).await,
            // What they have written is there, even if it was not a moment ago. Who reads it for somebody else may
            // have begun before that, but who reads it after them has not.
            Audience::OneReader => match Box::pin(memory.read_claim(slug, read)).await? {
                Some(claim) => Ok(Ok(claim)),
                None => {
                    let claim = Box::pin(memory.read_claim(slug, read)).await?;
                    Ok(claim.ok_or(Source::Log))
                }
            },
        }
    }

    /// Whoever shows a token is answered from memory only if that is known to have seen what they have.
    async fn post(&self, service: &Service, id: PostId) -> Result<Seen, ReadError> {
        let reads = service.reads.clone();
        match self.reader.audience() {
            Audience::Everybody => {
                let read = || async move { reads.post(id, None).await };
                service.memory.post(id, read).await
            }
            Audience::OneReader => {
                let demand = self.reader.demand(service, id);
                if let Some(seen) = demand.and_then(|demand| service.memory.fresh_with(id, demand))
                {
                    return Ok(seen);
                }
                let demand = demand.unwrap_or(Demand::Nothing);
                let post = Box::pin(reads.post_with(id, self.draft_reader(), demand)).await;
                post.map(|post| Seen::just_read(post.into()))
            }
        }
    }

    async fn refold(
        &self,
        service: &Service,
        id: PostId,
        claimed: Position,
    ) -> Result<Seen, ReadError> {
        let reads = service.reads.clone();
        match self.reader.audience() {
            Audience::Everybody => {
                let read = || async move { reads.refold(id, None, Demand::Nothing, claimed).await };
                service.memory.read_post(id, claimed, read).await
            }
            Audience::OneReader => {
                let demand = self.reader.demand(service, id).unwrap_or(Demand::Nothing);
                let post = reads.refold(id, self.draft_reader(), demand, claimed).await;
                post.map(|post| Seen::just_read(post.into()))
            }
        }
    }

    /// The last that was seen of the post, by anybody.
    fn stale_copy(&self, service: &Service) -> Option<AtAddress> {
        let (id, claimed) = match &self.address {
            Address::Id(id) => (*id, Position::ZERO),
            Address::Slug(slug) => {
                let claim = service.memory.known_claim(slug.as_str())?;
                (claim.post_id, claim.position)
            }
        };
        let seen = service.memory.stale_copy(id)?;
        let has_claim = seen.post.includes(claimed);
        Some(AtAddress { id, seen, has_claim })
    }

    /// A copy in memory that has seen more than a stale row in Redis: Redis may have come back from a dump.
    fn newer_copy(&self, service: &Service, seen: &Seen) -> Option<AtAddress> {
        let Freshness { source: Source::Redis, stale: true, .. } = seen.freshness else {
            return None;
        };
        let newer = |copy: &AtAddress| copy.seen.post.position > seen.post.position;
        self.stale_copy(service).filter(newer)
    }

    /// Says that no such post is published. A draft, a draft that was deleted and a slug that names nothing are
    /// told apart by nothing in it, not even by how far a partition has come.
    fn nothing_there(&self, source: Source) -> Response {
        let stale = self.reader.shows_unknown_token();
        let freshness = Freshness::now(Position::ZERO, source, stale);
        refused(Problem::not_found("no such post is published"), freshness)
    }

    /// Who is shown a draft, if it is theirs: it has no address yet but its id.
    fn draft_reader(&self) -> Option<&domain::AuthorId> {
        match &self.address {
            Address::Id(_) => self.reader.author(),
            Address::Slug(_) => None,
        }
    }

    /// Where the page is, if not at the slug that is asked for.
    fn elsewhere<'a>(&self, page: &'a Page) -> Option<&'a Slug> {
        match &self.address {
            Address::Id(_) => None,
            Address::Slug(slug) => page.slug.as_ref().filter(|current| *current != slug),
        }
    }

    /// Not for good, whatever the number says: a post may take an earlier slug of its own again. So caches
    /// are told what they are told of the page.
    fn moved(&self, slug: &Slug, freshness: Freshness) -> Result<Response, Problem> {
        let query = self.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
        let location = HeaderValue::try_from(format!("{}/{slug}{query}", self.base));
        let headers = [
            (header::LOCATION, location.map_err(|_| Problem::internal())?),
            (Freshness::HEADER, freshness.to_header()),
        ];
        let caching =
            [(header::CACHE_CONTROL, self.reader.audience().cache_control()), (header::VARY, VARY)];
        Ok((StatusCode::MOVED_PERMANENTLY, headers, caching).into_response())
    }
}

fn article_json(page: &Page, id: PostId) -> Result<Bytes, Problem> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        title: &'a RawValue,
        #[serde(borrow)]
        content: &'a RawValue,
        #[serde(borrow)]
        slug: &'a RawValue,
    }
    let Members { title, content, slug } = serde_json::from_slice(&page.body).map_err(|error| {
        tracing::error!(post.id = %id, "The page of post {id} cannot be read: {error}");
        Problem::internal()
    })?;
    Ok(format!("{{\"uid\":\"{id}\",\"title\":{title},\"content\":{content},\"slug\":{slug}}}")
        .into())
}

//! Lists of posts.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::Response;
use bytes::Bytes;
use http_api::{Actor, Problem};

use crate::answer::{Answer, Audience, IfNoneMatch, etag_of_bytes};
use crate::cursor;
use crate::list_query::ListQuery;
use crate::metrics::count_read;
use crate::reader::Reader;
use crate::reads::List;
use crate::routes::Service;

/// `GET /posts`
pub(crate) async fn posts(
    State(service): State<Service>,
    query: Result<Parameters, QueryRejection>,
    reader: Reader,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let query = ListQuery::parse(parameters(query)?)?;
    answer(&service, &query, reader.audience(), &known).await
}

/// `GET /me/posts`
pub(crate) async fn own_posts(
    State(service): State<Service>,
    query: Result<Parameters, QueryRejection>,
    actor: Actor,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let query = ListQuery::parse_own(actor.author_id, parameters(query)?)?;
    answer(&service, &query, Audience::OneReader, &known).await
}

/// What stands behind the `?`, in its order.
type Parameters = Query<Vec<(String, String)>>;

fn parameters(query: Result<Parameters, QueryRejection>) -> Result<Vec<(String, String)>, Problem> {
    match query {
        Ok(Query(parameters)) => Ok(parameters),
        Err(_) => Err(Problem::invalid_request("what stands behind the `?` cannot be read")),
    }
}

async fn answer(
    service: &Service,
    query: &ListQuery,
    audience: Audience,
    known: &IfNoneMatch,
) -> Result<Response, Problem> {
    let list = service.reads.list(&query.list, query.after, query.limit).await?;
    count_read("list", list.freshness.source.name());
    let next = list.next.map(|place| cursor::encode(&query.list, place));
    let body = list_json(&list, next.as_deref());
    let etag = etag_of_bytes(&body);
    let mut response =
        Answer { body, etag, freshness: list.freshness, audience }.unless_known(known);
    if let Some(next) = next {
        let link = format!("<{}>; rel=\"next\"", query.address_of(&next));
        let link = link.try_into().map_err(|_| Problem::internal())?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

fn list_json(list: &List, next: Option<&str>) -> Bytes {
    let cards: usize = list.cards.iter().map(|card| card.len() + 1).sum();
    let mut json = Vec::with_capacity(cards + 128);
    json.extend_from_slice(b"{\"items\":[");
    for (number, card) in list.cards.iter().enumerate() {
        if number > 0 {
            json.push(b',');
        }
        json.extend_from_slice(card);
    }
    json.extend_from_slice(b"],\"next\":");
    match next {
        // A cursor holds nothing that JSON would write otherwise.
        Some(cursor) => json.extend_from_slice(format!("\"{cursor}\"}}").as_bytes()),
        None => json.extend_from_slice(b"null}"),
    }
    json.into()
}

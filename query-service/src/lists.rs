//! Lists of posts.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::Response;
use http_api::{Actor, ConsistencyToken, Problem};
use read_model::ListName;

use crate::answer::{Answer, Audience, IfNoneMatch};
use crate::cursor;
use crate::list_query::ListQuery;
use crate::metrics::{STALE, count_read};
use crate::page_cache::KeptList;
use crate::reader::{Reader, Shown};
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
    let token = (reader.token(), reader.shows_unknown_token());
    answer(&service, &query, token, reader.audience(), &known).await
}

/// `GET /me/posts`
pub(crate) async fn own_posts(
    State(service): State<Service>,
    query: Result<Parameters, QueryRejection>,
    actor: Actor,
    shown: Shown,
    known: IfNoneMatch,
) -> Result<Response, Problem> {
    let query = ListQuery::parse_own(actor.author_id, parameters(query)?)?;
    let token = (shown.token(), shown.is_unknown());
    answer(&service, &query, token, Audience::OneReader, &known).await
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
    (token, shows_unknown_token): (Option<&ConsistencyToken>, bool),
    audience: Audience,
    known: &IfNoneMatch,
) -> Result<Response, Problem> {
    let ListQuery { list: name, after, limit } = query;
    let (read_at, key) = (Instant::now(), key(query));
    let (list, freshness) = match service.reads.list(name, *after, *limit, token).await {
        Ok(list) => {
            count_read("list", list.freshness.source.name());
            let freshness = list.freshness;
            (keep(service, query, key.as_deref(), &list, read_at), freshness)
        }
        Err(error) => {
            let copy = key.and_then(|key| service.memory.list_copy(&key)).ok_or(error)?;
            count_read("list", STALE);
            copy
        }
    };
    let freshness = freshness.stale_if(shows_unknown_token);
    let (body, etag) = (list.body.clone(), list.etag.clone());
    let mut response = Answer { body, etag, freshness, audience }.unless_known(known);
    if let Some(next) = &list.next {
        let link = format!("<{}>; rel=\"next\"", query.address_of(next));
        let link = link.try_into().map_err(|_| Problem::internal())?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// Makes an answer of a list, and keeps it if it may be shown to everybody and lacks nothing.
fn keep(
    service: &Service,
    query: &ListQuery,
    key: Option<&str>,
    list: &List,
    read_at: Instant,
) -> Arc<KeptList> {
    let next = list.next.map(|place| cursor::encode(&query.list, place));
    let List { incarnation, freshness, .. } = *list;
    let list = Arc::new(KeptList::new(&list.cards, next, incarnation, freshness, read_at));
    if let Some(key) = key.filter(|_| !freshness.stale) {
        service.memory.keep_list(key, list.clone());
    }
    list
}

/// What a page of a list is kept under. The lists that are for their author's eyes alone are not kept.
fn key(query: &ListQuery) -> Option<String> {
    match &query.list {
        ListName::Published | ListName::Tag(_) | ListName::Author(_) => {
            let after = query.after.map_or_else(String::new, |place| place.to_string());
            Some(format!("{} {} {after}", query.list, query.limit))
        }
        ListName::Own(_) | ListName::OwnDrafts(_) | ListName::OwnPublished(_) => None,
    }
}

//! Who sent a request, what is kept beside every event it causes, and what it demands beside its body.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use domain::AuthorId;
use domain::post::Author;
use http_api::etag::EntityTags;
use http_api::layers::RequestDeadline;
use http_api::{Actor, Problem, RequestId, ShownToken};
use serde::Serialize;

use crate::preconditions::{IdempotencyKey, KeyOfHead, if_match};
use crate::service::Service;
use crate::waiting;

#[derive(Debug)]
pub(crate) struct Caller {
    actor: Actor,
    request_id: Option<RequestId>,
    traceparent: Option<String>,
    if_match: Option<EntityTags>,
    key: Option<IdempotencyKey>,
    shown: ShownToken,
    wait: Option<Duration>,
    deadline: Option<Instant>,
}

impl Caller {
    pub(crate) fn author_id(&self) -> AuthorId {
        self.actor.author_id.clone()
    }

    pub(crate) fn author(&self) -> Author {
        Author { id: self.author_id(), name: self.actor.name.clone() }
    }

    pub(crate) fn metadata(&self) -> HashMap<String, String> {
        let actor = ("actor".to_owned(), self.actor.author_id.to_string());
        let trace = self.traceparent.clone().map(|trace| ("traceparent".to_owned(), trace));
        let request_id = self.request_id.as_ref().map(RequestId::as_str);
        let request_id = request_id.map(|id| ("request_id".to_owned(), id.to_owned()));
        [Some(actor), trace, request_id].into_iter().flatten().collect()
    }

    pub(crate) fn if_match(&self) -> Option<EntityTags> {
        self.if_match.clone()
    }

    pub(crate) fn key(&self) -> Option<IdempotencyKey> {
        self.key.clone()
    }

    /// The writes that the caller knows of already.
    pub(crate) fn shown(&self) -> ShownToken {
        self.shown.clone()
    }

    /// Returns the time at which the request is ended, whatever has become of it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the caller would wait for the views.
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.wait
    }
}

/// A command as it was sent: by whom, with what demands and with which body.
#[derive(Debug)]
pub(crate) struct Sent<B> {
    pub(crate) caller: Caller,
    pub(crate) body: B,
}

impl<B> FromRequest<Service> for Sent<B>
where
    B: FromRequest<Service, Rejection = Problem> + Serialize,
{
    type Rejection = Problem;

    async fn from_request(request: Request, service: &Service) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        // Every command lies behind `admit`.
        let actor: Actor = parts.extensions.remove().ok_or_else(Problem::internal)?;
        let key = KeyOfHead::read(&parts, &actor.author_id)?;
        let headers = &parts.headers;
        let mut caller = Caller {
            deadline: parts.extensions.get().map(|RequestDeadline(deadline)| *deadline),
            request_id: parts.extensions.get().cloned(),
            traceparent: traceparent(headers),
            if_match: if_match(headers)?,
            key: None,
            shown: service.consistency.shown(headers)?,
            wait: waiting::preferred(headers),
            actor,
        };
        let body = B::from_request(Request::from_parts(parts, body), service).await?;
        caller.key = key.map(|key| key.with_body(&body)).transpose()?;
        Ok(Self { caller, body })
    }
}

/// The W3C trace context (<https://www.w3.org/TR/trace-context/>), if there is one and it is well
/// formed. A bad one is not worth refusing a command for.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let mut given = headers.get_all("traceparent").iter();
    let text = given.next()?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts[..] else { return None };
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let id = |part: &str, digits| hex(part, digits) && part.bytes().any(|b| b != b'0');
    let good =
        hex(version, 2) && version != "ff" && id(trace, 32) && id(parent, 16) && hex(flags, 2);
    (good && given.next().is_none()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(values: &[&str]) -> Option<String> {
        let pair = |value: &&str| ("traceparent".parse().unwrap(), value.parse().unwrap());
        traceparent(&values.iter().map(pair).collect())
    }

    #[test]
    fn a_well_formed_trace_is_kept() {
        assert_eq!(read(&[GOOD]).as_deref(), Some(GOOD));
    }

    #[test]
    fn anything_else_is_ignored() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[GOOD, GOOD]), None);
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &format!("{GOOD}-more"),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        ] {
            assert_eq!(read(&[bad]), None, "{bad} was kept");
        }
    }
}

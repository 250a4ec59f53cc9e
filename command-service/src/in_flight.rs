//! Admission of requests: who asks is known before a body is read, and all requests in flight are bounded in
//! bytes, in total and for each actor.
//!
//! Capacity is taken as bytes arrive, not as they are announced, so that a client pays for its claims.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRef, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use domain::AuthorId;
use http_api::body::{MAX_BODY_BYTES, Refused};
use http_api::{Actor, Problem, TokenVerifier};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Estimated size of a request beside its body, in KiB: head, buffers of its connection, response.
const KIB_OF_ANY: usize = 8;
/// The largest request that there may be.
const MAX_KIB: usize = KIB_OF_ANY + MAX_BODY_BYTES / 1024;
/// An actor may take one part in so many, and one request of any size.
const SHARES: usize = 4;

/// Capacity for requests in flight. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    room: Arc<Semaphore>,
    /// How many KiB an actor may take.
    share: usize,
    /// How many KiB each actor takes, if any.
    actors: Arc<Mutex<HashMap<AuthorId, usize>>>,
    bytes: metrics::Gauge,
}

/// Capacity that one request takes, given back when it is answered or its client has gone.
#[derive(Debug)]
struct Taken {
    in_flight: InFlight,
    actor: AuthorId,
    kib: usize,
    room: OwnedSemaphorePermit,
}

impl InFlight {
    pub(crate) fn new(kib: u32) -> Self {
        let kib = kib as usize;
        Self {
            room: Arc::new(Semaphore::new(kib)),
            share: (kib / SHARES).max(MAX_KIB),
            actors: Arc::default(),
            bytes: metrics::gauge!("requests_in_flight_bytes"),
        }
    }

    /// Takes what a request needs whatever its body.
    fn take(&self, actor: AuthorId) -> Result<Taken, Problem> {
        let room = self.take_kib(&actor, KIB_OF_ANY)?;
        Ok(Taken { in_flight: self.clone(), actor, kib: KIB_OF_ANY, room })
    }

    fn take_kib(&self, actor: &AuthorId, kib: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let mut actors = self.actors();
        let taken = actors.get(actor).copied().unwrap_or(0);
        if taken + kib > self.share {
            return Err(reject(
                "share",
                Problem::rate_limited(
                    "too many requests of this author are in flight: wait for their responses",
                    1,
                ),
            ));
        }
        let permits = u32::try_from(kib).unwrap_or(u32::MAX);
        let Ok(room) = self.room.clone().try_acquire_many_owned(permits) else {
            let problem = Problem::unavailable("too many requests are in flight", 1);
            return Err(reject("total", problem));
        };
        match actors.get_mut(actor) {
            Some(taken) => *taken += kib,
            None => drop(actors.insert(actor.clone(), kib)),
        }
        self.bytes.increment(kib as f64 * 1024.0);
        Ok(room)
    }

    fn actors(&self) -> MutexGuard<'_, HashMap<AuthorId, usize>> {
        // Numbers are whole even if a thread has panicked while holding them.
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reject(limit: &'static str, problem: Problem) -> Problem {
    metrics::counter!("requests_rejected_total", "limit" => limit).increment(1);
    problem
}

impl Taken {
    /// Takes the rest of what a request needs with so many bytes of its body.
    fn grow_to(&mut self, body_bytes: usize) -> Result<(), Problem> {
        let needed = (KIB_OF_ANY + body_bytes.div_ceil(1024)).min(MAX_KIB);
        if let Some(more @ 1..) = needed.checked_sub(self.kib) {
            self.room.merge(self.in_flight.take_kib(&self.actor, more)?);
            self.kib = needed;
        }
        Ok(())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut actors = self.in_flight.actors();
        if let Some(taken) = actors.get_mut(&self.actor) {
            *taken = taken.saturating_sub(self.kib);
            if *taken == 0 {
                actors.remove(&self.actor);
            }
        }
        self.in_flight.bytes.decrement(self.kib as f64 * 1024.0);
    }
}

/// State of the admission layer.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub(crate) in_flight: InFlight,
    pub(crate) verifier: TokenVerifier,
}

impl FromRef<Admission> for TokenVerifier {
    fn from_ref(admission: &Admission) -> Self {
        admission.verifier.clone()
    }
}

/// Verifies who asks and takes capacity, or rejects a request before its body is read. The actor is passed on
/// as an extension of the request.
pub(crate) async fn admit(
    State(admission): State<Admission>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let actor = <Actor as FromRequestParts<_>>::from_request_parts(&mut parts, &admission).await?;
    let taken = Arc::new(Mutex::new(admission.in_flight.take(actor.author_id.clone())?));
    parts.extensions.insert(actor);
    let body = Body::new(Metered { body, bytes: 0, taken: taken.clone() });
    let response = next.run(Request::from_parts(parts, body)).await;
    // Until here, also if the body was dropped long before.
    drop(taken);
    Ok(response)
}

/// A body that takes capacity as it arrives.
#[derive(Debug)]
struct Metered {
    body: Body,
    bytes: usize,
    taken: Arc<Mutex<Taken>>,
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.bytes += frame.data_ref().map_or(0, Bytes::len);
            let grown = {
                let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
                taken.grow_to(self.bytes)
            };
            if let Err(problem) = grown {
                return Poll::Ready(Some(Err(Refused(problem).into())));
            }
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_actor_takes_at_most_its_share_and_all_of_them_what_there_is() {
        let in_flight = InFlight::new(4 * 2048);
        let take = |actor: &str| in_flight.take(actor.parse().unwrap());
        let mut first = take("anne").unwrap();
        first.grow_to(MAX_BODY_BYTES).unwrap();
        let mut second = take("anne").unwrap();
        second.grow_to(900 << 10).unwrap();
        let refused = second.grow_to(MAX_BODY_BYTES).unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.code()), (429, "rate_limited"));

        let mut others = vec![];
        let refused = loop {
            let mut taken = take(&format!("author-{}", others.len())).unwrap();
            let grown = taken.grow_to(MAX_BODY_BYTES);
            others.push(taken);
            if let Err(problem) = grown {
                break problem;
            }
        };
        assert_eq!(refused.code(), "unavailable");
        // Six have all they need; the seventh, refused, holds what it took before its body.
        assert_eq!(others.len(), 7);

        drop((first, second, others));
        assert_eq!(in_flight.room.available_permits(), 4 * 2048);
        assert!(in_flight.actors().is_empty());
    }

    #[test]
    fn one_request_of_any_size_fits_into_a_share() {
        let in_flight = InFlight::new(2048);
        let mut taken = in_flight.take("anne".parse().unwrap()).unwrap();
        taken.grow_to(MAX_BODY_BYTES).unwrap();
        assert_eq!(in_flight.take("anne".parse().unwrap()).unwrap_err().code(), "rate_limited");
    }
}

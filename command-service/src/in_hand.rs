//! The requests in hand: bounded in bytes, so that thousands of long bodies at once cannot fill the memory.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_api::Problem;
use http_api::body::MAX_BODY_BYTES;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What a request takes beside its body, about: its head, its connection's buffers, its answer.
const KIB_OF_ANY: usize = 8;

/// Clones share the room.
#[derive(Debug, Clone)]
pub(crate) struct InHand {
    room: Arc<Semaphore>,
    bytes: metrics::Gauge,
}

/// The room that one request takes, given back when it is answered or its client has gone.
struct Taken<'a> {
    _room: SemaphorePermit<'a>,
    bytes: &'a metrics::Gauge,
    weight: f64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.bytes.decrement(self.weight);
    }
}

impl InHand {
    pub(crate) fn new(kib: u32) -> Self {
        let bytes = metrics::gauge!("requests_in_hand_bytes");
        Self { room: Arc::new(Semaphore::new(kib as usize)), bytes }
    }

    fn take(&self, kib: u32) -> Option<Taken<'_>> {
        let room = self.room.try_acquire_many(kib).ok()?;
        let weight = f64::from(kib) * 1024.0;
        self.bytes.increment(weight);
        Some(Taken { _room: room, bytes: &self.bytes, weight })
    }
}

/// Takes a request in hand until it is answered, or turns it away before its body is read.
pub(crate) async fn admit(State(in_hand): State<InHand>, request: Request, next: Next) -> Response {
    let Some(_taken) = in_hand.take(weight_in_kib(&request)) else {
        metrics::counter!("requests_turned_away_total").increment(1);
        return Problem::unavailable("too many requests are in hand", 1).into_response();
    };
    next.run(request).await
}

/// A body counts as long as it says it is; one that does not say may be as long as any.
fn weight_in_kib(request: &Request) -> u32 {
    let headers = request.headers();
    let told =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let untold = if headers.contains_key(header::TRANSFER_ENCODING) { MAX_BODY_BYTES } else { 0 };
    let bytes = told.unwrap_or(untold).min(MAX_BODY_BYTES);
    u32::try_from(KIB_OF_ANY + bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

//! Reads all bytes of a body, or says why they cannot be had.

use std::error::Error;

use axum::body::{Body, Bytes, HttpBody as _};
use futures::StreamExt as _;
use service_runtime::server::BodyError;

use super::MAX_BODY_BYTES;
use crate::Problem;

/// The error of a body that something on its way refuses to pass on.
#[derive(Debug, thiserror::Error)]
#[error("the body is refused")]
pub struct Refused(pub Problem);

/// Reads a body of at most [`MAX_BODY_BYTES`]. One that says it is longer is not asked for.
pub async fn whole(body: Body) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(too_large());
    }
    let mut pieces = body.into_data_stream();
    let Some(first) = pieces.next().await else { return Ok(Bytes::new()) };
    let first = first.map_err(|error| problem(&error))?;
    let Some(mut next) = pieces.next().await else { return checked(first) };
    // Room is made for what has arrived, not for what was announced.
    let mut bytes = first.to_vec();
    loop {
        bytes.extend_from_slice(&next.map_err(|error| problem(&error))?);
        if bytes.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        match pieces.next().await {
            Some(piece) => next = piece,
            None => return Ok(bytes.into()),
        }
    }
}

fn checked(bytes: Bytes) -> Result<Bytes, Problem> {
    if bytes.len() > MAX_BODY_BYTES { Err(too_large()) } else { Ok(bytes) }
}

fn too_large() -> Problem {
    Problem::too_large(format!("a body has at most {MAX_BODY_BYTES} bytes"))
}

/// Returns what is wrong with a body that cannot be read to its end.
fn problem(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Refused(problem)) = error.downcast_ref() {
            return problem.clone();
        }
        if let Some(BodyError::Stalled) = error.downcast_ref() {
            return Problem::request_timeout();
        }
        cause = error.source();
    }
    Problem::invalid_request("the body did not arrive whole")
}

//! The one table of URLs.

use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{patch, post};
use http_api::{CorsArgs, layers};

use crate::in_flight::{Admission, InFlight, admit};
use crate::service::Service;
use crate::{openapi, posts};

pub(crate) fn routes(
    service: Service,
    in_flight: InFlight,
    request_limit: Duration,
    cors: &CorsArgs,
) -> Router {
    let admission = Admission { in_flight, verifier: service.verifier.clone() };
    let routes = Router::new()
        .route("/posts", post(posts::create))
        .route("/posts/{id}", patch(posts::revise).delete(posts::delete))
        .route("/posts/{id}/publish", post(posts::publish))
        .route("/posts/{id}/unpublish", post(posts::unpublish))
        .route("/post", post(posts::create_article))
        // Outside of whatever reads a body.
        .route_layer(from_fn_with_state(admission, admit))
        .merge(http_api::openapi::serve(&openapi::document()));
    layers::surround(routes, request_limit, cors).with_state(service)
}

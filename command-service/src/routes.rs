//! The one table of URLs.

use std::time::Duration;

use axum::Router;
use axum::routing::{patch, post};
use http_api::layers;

use crate::posts;
use crate::service::Service;

pub(crate) fn routes(service: Service, request_limit: Duration) -> Router {
    let routes = Router::new()
        .route("/posts", post(posts::create))
        .route("/posts/{id}", patch(posts::revise).delete(posts::delete))
        .route("/posts/{id}/publish", post(posts::publish))
        .route("/posts/{id}/unpublish", post(posts::unpublish))
        .route("/post", post(posts::create_article));
    layers::surround(routes, request_limit).with_state(service)
}

//! How an outcome is answered: the same whether it is new or was kept under its key.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::post::Status;
use domain::{Position, PostId, Slug};
use http_api::etag;
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::Caller;
use crate::execute::{Answered, Outcome};
use crate::refusal::problem;
use crate::service::Service;

/// The name of the header that tells a kept answer from a new one.
const REPLAYED: &str = "idempotent-replayed";

/// Where the post stands now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PostStanding)]
pub(crate) struct Body<'a> {
    #[schema(value_type = String, format = Uuid)]
    id: PostId,
    /// `null` while a draft has none
    #[schema(required, value_type = Option<String>, min_length = 1, max_length = 80, pattern = "^[a-z0-9]+(-[a-z0-9]+)*$")]
    slug: Option<&'a Slug>,
    #[schema(value_type = String, pattern = "^(draft|published|deleted)$")]
    status: Status,
    /// How far the post has come in its stream
    #[schema(minimum = 1)]
    version: u64,
    /// How far the store had come with it
    #[schema(value_type = u64, minimum = 1)]
    position: Position,
}

impl Service {
    /// Answers a command, after waiting for the views if the client prefers that.
    pub(crate) async fn answer(&self, caller: &Caller, answered: &Answered) -> Response {
        let mut response = match &answered.outcome {
            Outcome::Done { post_id, slug, status, created } => {
                let body = Body {
                    id: *post_id,
                    slug: slug.as_ref(),
                    status: *status,
                    version: answered.version,
                    position: answered.position,
                };
                let code = if *created { StatusCode::CREATED } else { StatusCode::OK };
                let mut response = (code, Json(&body)).into_response();
                let headers = response.headers_mut();
                headers.insert(header::ETAG, etag::of_version(body.version));
                if *created {
                    insert(headers, header::LOCATION, self.location(&body));
                }
                self.hand_out_token(caller, *post_id, answered.position, headers);
                self.wait(caller, *post_id, answered.position, headers).await;
                response
            }
            Outcome::Refused(refusal) => problem(*refusal, answered.version).into_response(),
        };
        if answered.replayed {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }

    fn location(&self, body: &Body<'_>) -> String {
        let published = body.slug.filter(|_| body.status == Status::Published);
        // A draft has no page under its slug; its author reads it by its id.
        let name = published.map_or_else(|| body.id.to_string(), Slug::to_string);
        format!("{}/posts/{name}", self.public_url)
    }
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, text: String) {
    // Ids, slugs and an address that was checked when it was set: all of them ASCII.
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

//! Refusals as problem documents (RFC 9457), each with a code that stays the same.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{FieldError, RequestId};

/// A refusal, as a client sees it. The code is for programs, the detail for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after_seconds: Option<u32>,
    /// The present version of what the request was about.
    version: Option<u64>,
    /// Value of `WWW-Authenticate`.
    challenge: Option<&'static str>,
}

/// The members of the document. The code says more than a type would, so the type is the blank one,
/// whose title is that of the status.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, description = "Why a request is refused (RFC 9457)")]
pub(crate) struct Document<'a> {
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// What the status is called.
    title: &'a str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, for people.
    pub(crate) detail: &'a str,
    /// What is wrong, for programs: it stays the same.
    code: &'static str,
    /// With `validation_failed`: each field that cannot be accepted.
    #[schema(required = false)]
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    /// With the status 412: the present version.
    #[schema(nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    /// The `X-Request-Id` of the response, which log output and events carry as well.
    #[schema(nullable = false, min_length = 1, max_length = 128, pattern = "^[!-~]+$")]
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

type Detail = Cow<'static, str>;

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Detail>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: vec![],
            retry_after_seconds: None,
            version: None,
            challenge: None,
        }
    }

    /// The request cannot be read at all.
    pub fn invalid_request(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    /// It is not known who is asking.
    pub fn unauthenticated(detail: impl Into<Detail>) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
        Self { challenge: Some("Bearer"), ..problem }
    }

    /// Rejects a bearer token that was shown (RFC 6750, section 3).
    pub fn invalid_token(detail: impl Into<Detail>) -> Self {
        let challenge = Some("Bearer error=\"invalid_token\"");
        Self { challenge, ..Self::unauthenticated(detail) }
    }

    /// It is known who is asking, and they may not.
    pub fn forbidden(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    pub fn not_found(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub fn method_not_allowed() -> Self {
        let detail = "this address does not take this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// It was there and is not any more.
    pub fn gone(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::GONE, "gone", detail)
    }

    /// Others changed the same thing at the same time, again and again.
    pub fn version_conflict(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::CONFLICT, "version_conflict", detail)
    }

    /// Rejects a request whose `If-Match` names other versions than the present one.
    pub fn precondition_failed(present: u64) -> Self {
        let detail = format!("the post is at version {present}, not at one that If-Match names");
        let problem = Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail);
        Self { version: Some(present), ..problem }
    }

    /// The key of the request was given to another one before.
    pub fn idempotency_key_reused() -> Self {
        let detail = "this Idempotency-Key was given to another request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
    }

    /// The slug that the author asked for belongs to another post.
    pub fn slug_taken() -> Self {
        let detail = "this slug belongs to another post";
        Self::new(StatusCode::CONFLICT, "slug_taken", detail)
    }

    /// The body of the request did not arrive in time.
    pub fn request_timeout() -> Self {
        let detail = "the body did not arrive in time: send it faster";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    }

    /// This client asks for more than its share; trying again after so many seconds may succeed.
    pub fn rate_limited(detail: impl Into<Detail>, retry_after_seconds: u32) -> Self {
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        Self { retry_after_seconds: Some(retry_after_seconds), ..problem }
    }

    pub fn too_large(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub fn unsupported_media_type(detail: impl Into<Detail>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// The request can be read, and some of its fields cannot be accepted.
    pub fn validation_failed(errors: Vec<FieldError>) -> Self {
        let detail = "some fields of the request cannot be accepted";
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", detail);
        Self { errors, ..problem }
    }

    /// Our own fault. What exactly went wrong is for our log, not for clients.
    pub fn internal() -> Self {
        let detail = "something went wrong on our side";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// Not now; trying again after so many seconds may succeed.
    pub fn unavailable(detail: impl Into<Detail>, retry_after_seconds: u32) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail);
        Self { retry_after_seconds: Some(retry_after_seconds), ..problem }
    }

    /// The command may have been carried out, or may still be. Only with an idempotency key is it safe
    /// to try again, after so many seconds.
    pub fn outcome_unknown(retry_after_seconds: Option<u32>) -> Self {
        let detail = "it is not known whether the command was recorded: repeat it with the same \
            Idempotency-Key, or without one read the post first";
        let problem = Self::new(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", detail);
        Self { retry_after_seconds, ..problem }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn document<'a>(&'a self, request_id: Option<&'a str>) -> Document<'a> {
        Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            errors: &self.errors,
            version: self.version,
            request_id,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let request_id = RequestId::present();
        let document = self.document(request_id.as_ref().map(RequestId::as_str));
        let mut response = (self.status, axum::Json(document)).into_response();
        let headers = response.headers_mut();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn a_problem_is_a_problem_document() {
        let error = FieldError::new("title", "empty", "must not be empty");
        let response = Problem::validation_failed(vec![error]).into_response();
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let body = to_bytes(response.into_body(), 1000).await.unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({
                "type": "about:blank",
                "title": "Unprocessable Entity",
                "status": 422,
                "detail": "some fields of the request cannot be accepted",
                "code": "validation_failed",
                "errors": [{ "field": "title", "code": "empty", "message": "must not be empty" }],
            })
        );
    }

    #[test]
    fn a_problem_says_what_to_do_next_in_its_headers() {
        let response = Problem::unavailable("busy", 2).into_response();
        assert_eq!(response.headers()["retry-after"], "2");
        let response = Problem::outcome_unknown(Some(3)).into_response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (504, &3.into())
        );
        let response = Problem::outcome_unknown(None).into_response();
        assert_eq!(response.headers().get("retry-after"), None);
        let response = Problem::unauthenticated("who are you").into_response();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let response = Problem::invalid_token("it has expired").into_response();
        assert_eq!(response.headers()["www-authenticate"], "Bearer error=\"invalid_token\"");
    }
}

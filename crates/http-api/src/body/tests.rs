//! What comes of bodies, good and bad.

use axum::http::header;
use axum::response::IntoResponse as _;
use futures::TryStreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    title: String,
    tags: Option<Vec<String>>,
    kind: Option<Kind>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Long,
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

#[tokio::test]
async fn json_and_forms_are_read() {
    let read = json_body(r#" {"title": "a", "tags": ["b"], "kind": "long"} "#).await.unwrap();
    let tags = Some(vec!["b".to_owned()]);
    assert_eq!(read, Note { title: "a".to_owned(), tags, kind: Some(Kind::Long) });
    let read = form_body("title=a+%C3%BC%26&kind=long").await.unwrap();
    assert_eq!(read, Note { title: "a ü&".to_owned(), tags: None, kind: Some(Kind::Long) });
}

#[tokio::test]
async fn bad_syntax_is_a_bad_request() {
    for bad in [
        "",
        "{",
        "nonsense",
        r#"{"title": "a"} x"#,
        r#"{"title": "a",}"#,
        r#"{"title": "\ud800"}"#,
        // Not only the first thing that is wrong counts.
        r#"{"title": 5, "#,
        "[1, 2",
        &"[".repeat(100_000),
    ] {
        let told = told(json_body(bad).await).await;
        assert_eq!((&told["status"], &told["code"]), (&400.into(), &"invalid_request".into()));
    }
    let told = told(json_body("{\n \"title\": }").await).await;
    let detail = "the body is not valid JSON: expected value at line 2 column 11";
    assert_eq!(told["detail"], detail);
}

#[tokio::test]
async fn what_is_not_utf8_is_a_bad_request() {
    for (media, bytes) in
        [(JSON, &b"{\"title\": \"\xff\"}"[..]), (FORM, b"title=\xff"), (FORM, b"title=%ff")]
    {
        let told = told(FormOrJson::<Note>::from_request(request(media, bytes), &()).await).await;
        assert_eq!(told["detail"], "the body is not valid UTF-8");
    }
}

#[tokio::test]
async fn a_field_that_does_not_fit_is_named() {
    for (body, field, code) in [
        (r#"{"title": 5}"#, "title", "wrong_type"),
        (r#"{"title": null}"#, "title", "wrong_type"),
        (r#"{"title": "a", "tags": ["b", 5]}"#, "tags.1", "wrong_type"),
        (r#"{"title": "a", "tagz": []}"#, "tagz", "unknown_field"),
        (r#"{"title": "a", "title": "b"}"#, "title", "duplicate"),
        (r#"{"title": "a", "kind": "short"}"#, "kind", "not_allowed"),
        ("{}", "title", "missing"),
        (r#"["a", ["b"], "long"]"#, "", "wrong_type"),
        ("5", "", "wrong_type"),
        ("null", "", "wrong_type"),
    ] {
        let told = told(json_body(body).await).await;
        assert_eq!(told["status"], 422, "{body}");
        let error = &told["errors"][0];
        assert_eq!((&error["field"], &error["code"]), (&field.into(), &code.into()), "{body}");
        assert!(!error["message"].as_str().unwrap().contains("column"), "{error}");
    }
    for (body, field, code) in [
        ("", "title", "missing"),
        ("title=a&tagz=b", "tagz", "unknown_field"),
        ("title=a&title=b", "title", "duplicate"),
        ("title=a&kind=short", "kind", "not_allowed"),
    ] {
        let error = told(form_body(body).await).await["errors"][0].clone();
        assert_eq!((&error["field"], &error["code"]), (&field.into(), &code.into()), "{body}");
    }
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let told_json = told(Json::<Note>::from_request(request(FORM, b"title=a"), &()).await).await;
    assert_eq!(told_json["code"], "unsupported_media_type");
    let none = Request::new("{}".into());
    assert_eq!(told(Json::<Note>::from_request(none, &()).await).await["status"], 415);
    let mut packed = request(JSON, b"{}");
    packed.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    assert_eq!(told(Json::<Note>::from_request(packed, &()).await).await["status"], 415);
}

#[tokio::test]
async fn where_no_body_is_expected_only_an_empty_one_is_accepted() {
    for (media, body) in [(JSON, ""), ("text/plain", ""), (JSON, "{}"), (JSON, " {} ")] {
        let read = EmptyBody::from_request(request(media, body.as_bytes()), &()).await;
        assert!(read.is_ok(), "{media} {body}");
    }
    assert!(EmptyBody::from_request(Request::new("".into()), &()).await.is_ok());
    for (media, body, status) in [
        ("text/plain", "{}", 415),
        (FORM, "a=b", 415),
        (JSON, r#"{"at": "noon"}"#, 422),
        (JSON, "[]", 422),
        (JSON, "null", 422),
        (JSON, "{", 400),
    ] {
        let read = EmptyBody::from_request(request(media, body.as_bytes()), &()).await;
        assert_eq!(told(read).await["status"], status, "{media} {body}");
    }
    assert_eq!(
        told(EmptyBody::from_request(Request::new("{}".into()), &()).await).await["status"],
        415
    );
}

#[tokio::test]
async fn a_patch_may_call_itself_json() {
    for media in [JSON, "application/merge-patch+json"] {
        let patch = MergePatch::<Note>::from_request(request(media, br#"{"title":"a"}"#), &());
        assert_eq!(patch.await.unwrap().0.title, "a");
    }
}

#[tokio::test]
async fn a_body_that_cannot_be_had_says_why() {
    let refuse = |error: axum::BoxError| async {
        let pieces = futures::stream::iter([Ok("{".into()), Err(axum::Error::new(error))]);
        let body = axum::body::Body::from_stream(pieces.map_ok(|piece: String| piece));
        whole(axum::body::Body::new(body)).await.unwrap_err()
    };
    let stalled = service_runtime::server::BodyError::Stalled;
    assert_eq!(refuse(stalled.into()).await, Problem::request_timeout());
    let busy = Problem::unavailable("busy", 1);
    assert_eq!(refuse(Refused(busy.clone()).into()).await, busy);
    assert_eq!(refuse("broken".into()).await.code(), "invalid_request");
}

async fn json_body(text: &str) -> Result<Note, Problem> {
    Json::from_request(request(JSON, text.as_bytes()), &()).await.map(|Json(note)| note)
}

async fn form_body(text: &str) -> Result<Note, Problem> {
    let read = FormOrJson::from_request(request(FORM, text.as_bytes()), &()).await;
    read.map(|FormOrJson(note)| note)
}

fn request(media: &str, body: &[u8]) -> Request {
    let request = Request::builder().header(header::CONTENT_TYPE, media);
    request.body(body.to_vec().into()).unwrap()
}

/// What a client is told of a refusal.
async fn told<T: std::fmt::Debug>(refused: Result<T, Problem>) -> Value {
    let response = refused.unwrap_err().into_response();
    let bytes = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or(json!(null))
}

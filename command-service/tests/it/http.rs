//! What clients are told: commands that are carried out, and every way in which one is refused.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use testkit::eventually;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Service, new_database, start, start_with, token, told};

#[tokio::test]
async fn a_post_is_made_with_its_address_and_version() {
    let service = start().await;
    let body = json!({ "title": "On writing", "content": "Begin." });
    let answer = service.anne(Method::POST, "/posts").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["location"], "https://blog.example/posts/on-writing");
    assert_eq!(answer.headers()["etag"], "\"2\"");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let body: Value = answer.json().await.unwrap();
    assert_eq!((&body["slug"], &body["status"]), (&json!("on-writing"), &json!("published")));
    assert_eq!((&body["version"], &body["position"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn a_draft_is_found_by_its_id() {
    let service = start().await;
    let body = json!({ "title": "On writing", "content": "", "status": "draft" });
    let answer = service.anne(Method::POST, "/posts").json(&body).send().await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(location, format!("https://blog.example/posts/{}", body["id"].as_str().unwrap()));
    assert_eq!((&body["slug"], &body["status"]), (&Value::Null, &json!("draft")));
}

#[tokio::test]
async fn a_post_goes_through_its_life() {
    let service = start().await;
    let (_, made) = made(&service, json!({ "title": "a", "content": "b", "slug": "mine" })).await;
    let id = made["id"].as_str().unwrap();
    let path = |rest: &str| format!("/posts/{id}{rest}");
    let patch = json!({ "title": "c", "tags": ["x"], "summary": null });
    for (method, rest, body, status, version) in [
        (Method::PATCH, "", Some(&patch), "published", 3),
        // What changes nothing is a success that records nothing.
        (Method::PATCH, "", Some(&patch), "published", 3),
        (Method::POST, "/publish", None, "published", 3),
        (Method::POST, "/unpublish", None, "draft", 4),
        (Method::POST, "/unpublish", None, "draft", 4),
        (Method::POST, "/publish", None, "published", 5),
        (Method::DELETE, "", None, "deleted", 6),
        (Method::DELETE, "", None, "deleted", 6),
    ] {
        let request = service.anne(method.clone(), &path(rest));
        let request = body.iter().fold(request, |request, body| request.json(body));
        let (code, told) = told(request).await;
        assert_eq!(code, 200, "{method} {rest}: {told}");
        assert_eq!((&told["status"], &told["version"]), (&json!(status), &json!(version)));
        assert_eq!(told["slug"], "mine");
    }
    for (method, rest) in [(Method::POST, "/publish"), (Method::POST, "/unpublish")] {
        expect(told(service.anne(method, &path(rest))).await, 410, "gone");
    }
    expect(told(service.anne(Method::PATCH, &path("")).json(&json!({}))).await, 410, "gone");
}

#[tokio::test]
async fn a_post_is_changed_under_its_id_and_every_slug_it_ever_had() {
    let service = start().await;
    let body = json!({ "title": "On writing", "content": "Begin." });
    let answer = service.anne(Method::POST, "/posts").json(&body).send().await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let id = answer.json::<Value>().await.unwrap()["id"].clone();
    let path = location.strip_prefix("https://blog.example").unwrap();
    let change = async |method, path: &str, body: Value| {
        let (status, told) = told(service.anne(method, path).json(&body)).await;
        assert_eq!((status, &told["id"]), (200, &id), "{path}: {told}");
        told["version"].clone()
    };
    assert_eq!(change(Method::PATCH, path, json!({ "slug": "the-craft" })).await, 3);
    assert_eq!(change(Method::PATCH, path, json!({ "title": "a" })).await, 4);
    assert_eq!(change(Method::POST, "/posts/the-craft/unpublish", json!({})).await, 5);
    assert_eq!(change(Method::POST, "/posts/on-writing/publish", json!({})).await, 6);
    let by_id = format!("/posts/{}", id.as_str().unwrap());
    assert_eq!(change(Method::PATCH, &by_id, json!({ "title": "b" })).await, 7);
    assert_eq!(change(Method::DELETE, "/posts/the-craft", json!({})).await, 8);
    expect(told(service.anne(Method::POST, "/posts/the-craft/publish")).await, 410, "gone");
}

#[tokio::test]
async fn a_slug_that_names_no_post_is_answered_as_an_unknown_id() {
    let service = start().await;
    for key in [None, Some("k")] {
        let mut seen = vec![];
        for address in ["nothing-here", "01890000-0000-7000-8000-000000000000"] {
            for _ in 0..2 {
                let request = service.anne(Method::DELETE, &format!("/posts/{address}"));
                let request = match key {
                    Some(key) => request.header("idempotency-key", format!("{key}-{address}")),
                    None => request,
                };
                let answer = request.send().await.unwrap();
                let replayed = answer.headers().get("idempotent-replayed").is_some();
                let status = answer.status().as_u16();
                let mut problem = answer.json::<Value>().await.unwrap();
                // Each request has an id of its own.
                assert!(problem["request_id"].take().is_string());
                seen.push((replayed, status, problem));
            }
        }
        assert_eq!(seen[0].1, 404);
        assert_eq!(seen[..2], seen[2..], "{key:?}");
    }
}

#[tokio::test]
async fn an_article_is_made_from_a_form_or_from_json() {
    let service = start().await;
    let article = json!({ "title": "On Ünï", "content": "a & b" });
    let form = service.anne(Method::POST, "/post").form(&article);
    let (code, body) = told(form).await;
    assert_eq!((code, &body["slug"]), (201, &json!("on-uni")));
    let (code, body) = told(service.anne(Method::POST, "/post").json(&article)).await;
    assert_eq!((code, &body["status"]), (201, &json!("published")));
    // The same title suggests the same slug, so this one got digits behind it.
    assert!(body["slug"].as_str().unwrap().starts_with("on-uni-"), "{body}");
    let form = service.anne(Method::POST, "/post").form(&json!({ "title": "a", "text": "b" }));
    expect(told(form).await, 422, "validation_failed");
}

#[tokio::test]
async fn a_slug_that_was_asked_for_and_is_taken_is_refused() {
    let service = start().await;
    let body = json!({ "title": "a", "content": "b", "slug": "mine", "status": "draft" });
    assert_eq!(made(&service, body.clone()).await.0, 201);
    expect(made(&service, body).await, 409, "slug_taken");
    let (_, other) = made(&service, json!({ "title": "a", "content": "b" })).await;
    let path = format!("/posts/{}", other["id"].as_str().unwrap());
    let patch = service.anne(Method::PATCH, &path).json(&json!({ "slug": "mine" }));
    expect(told(patch).await, 409, "slug_taken");
}

#[tokio::test]
async fn only_its_author_changes_a_post() {
    let service = start().await;
    let (_, made) = made(&service, json!({ "title": "a", "content": "b" })).await;
    let path = format!("/posts/{}", made["id"].as_str().unwrap());
    let bob = |method| service.request(method, &path).bearer_auth(token("bob"));
    expect(told(bob(Method::DELETE)).await, 403, "forbidden");
    expect(told(bob(Method::PATCH).json(&json!({ "title": "c" }))).await, 403, "forbidden");
}

#[tokio::test]
async fn to_others_a_draft_is_a_post_that_does_not_exist() {
    let service = start().await;
    let draft = async |slug: &str| {
        let body = json!({ "title": "a", "content": "", "status": "draft", "slug": slug });
        made(&service, body).await.1["id"].as_str().unwrap().to_owned()
    };
    let (waiting, thrown_away, taken_back) =
        (draft("waiting").await, draft("thrown-away").await, draft("taken-back").await);
    told(service.anne(Method::DELETE, &format!("/posts/{thrown_away}"))).await;
    for command in ["publish", "unpublish"] {
        told(service.anne(Method::POST, &format!("/posts/{taken_back}/{command}"))).await;
    }

    let nothing = "01890000-0000-7000-8000-000000000000";
    let addresses = [
        "01890000-0000-7000-8000-000000000001",
        "free",
        &waiting,
        "waiting",
        &thrown_away,
        "thrown-away",
        &taken_back,
        "taken-back",
    ];
    let all = async |author: &str, address: &str, key: Option<&str>| {
        let mut seen = vec![];
        for (method, rest) in [
            (Method::PATCH, ""),
            (Method::POST, "/publish"),
            (Method::POST, "/unpublish"),
            (Method::DELETE, ""),
        ] {
            for _again in 0..2 {
                let path = format!("/posts/{address}{rest}");
                let mut request = service.request(method.clone(), &path).bearer_auth(token(author));
                request = request.header("if-match", "*").json(&json!({}));
                if let Some(key) = key {
                    let key = format!("{key}-{address}-{method}{}", rest.len());
                    request = request.header("idempotency-key", key);
                }
                let answer = request.send().await.unwrap();
                let mut headers = answer.headers().clone();
                headers.remove("date");
                headers.remove("x-request-id");
                let status = answer.status().as_u16();
                let mut body: Value = answer.json().await.unwrap();
                body.as_object_mut().unwrap().remove("request_id");
                seen.push((status, headers, body));
            }
        }
        seen
    };
    for key in [None, Some("k")] {
        let expected = all("bob", nothing, key).await;
        assert!(expected.iter().all(|(status, ..)| *status == 404), "{expected:?}");
        for address in addresses {
            assert_eq!(all("bob", address, key).await, expected, "{address}, {key:?}");
        }
    }
    // Her own are where they were.
    expect(told(service.anne(Method::POST, "/posts/thrown-away/publish")).await, 410, "gone");
    for (own, version) in [("waiting", 2), ("taken-back", 4)] {
        let (status, published) =
            told(service.anne(Method::POST, &format!("/posts/{own}/publish"))).await;
        assert_eq!((status, &published["version"]), (200, &json!(version)), "{published}");
    }
}

#[tokio::test]
async fn a_command_without_a_body_takes_none() {
    let service = start().await;
    let (_, made) = made(&service, json!({ "title": "a", "content": "b" })).await;
    let id = made["id"].as_str().unwrap();
    for (method, rest) in
        [(Method::POST, "/publish"), (Method::POST, "/unpublish"), (Method::DELETE, "")]
    {
        let request = || service.anne(method.clone(), &format!("/posts/{id}{rest}"));
        let body = json!({ "at": "noon" });
        expect(told(request().json(&body)).await, 422, "validation_failed");
        expect(told(request().form(&body)).await, 415, "unsupported_media_type");
        expect(told(request().body("{}")).await, 415, "unsupported_media_type");
        assert_eq!(told(request().json(&json!({}))).await.0, 200);
        let empty = request().header("content-type", "application/json");
        assert_eq!(told(empty).await.0, 200);
    }
}

#[tokio::test]
async fn tags_keep_the_spelling_of_their_author() {
    let service = start().await;
    let tags = json!(["C", "C++", "C#", ".NET", "Event Sourcing"]);
    let (status, _) = made(&service, json!({ "title": "a", "content": "b", "tags": tags })).await;
    assert_eq!(status, 201);
    let recorded: Value = sqlx::query_scalar(
        "SELECT payload #> '{drafted,content,tags}' FROM events WHERE position = 1",
    )
    .fetch_one(&mut service.database().connect().await)
    .await
    .unwrap();
    assert_eq!(recorded, tags);
}

#[tokio::test]
async fn nobody_gets_in_without_a_good_token() {
    let service = start().await;
    let post = || service.request(Method::POST, "/posts").json(&json!({}));
    let shown = "Bearer error=\"invalid_token\"";
    for (request, challenge) in [
        (post(), "Bearer"),
        (post().bearer_auth("nonsense"), shown),
        (post().bearer_auth("x".repeat(20_000)), shown),
        (post().header("authorization", "Basic YTpi"), "Bearer"),
        (service.request(Method::DELETE, "/posts/not-an-id"), "Bearer"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], challenge);
        expect((answer.status().as_u16(), answer.json().await.unwrap()), 401, "unauthenticated");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let service = start().await;
    for path in ["/posts/not-an-id", "/posts/01890000-0000-7000-8000-000000000000"] {
        expect(told(service.anne(Method::DELETE, path)).await, 404, "not_found");
        let publish = service.anne(Method::POST, &format!("{path}/publish"));
        expect(told(publish).await, 404, "not_found");
    }
    expect(told(service.anne(Method::POST, "/nowhere")).await, 404, "not_found");
    let answer = service.anne(Method::GET, "/posts").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["allow"]),
        (405, &"POST".parse().unwrap())
    );
}

#[tokio::test]
async fn every_broken_limit_is_named() {
    let service = start().await;
    let (_, made) = made(&service, json!({ "title": "a", "content": "b" })).await;
    let path = format!("/posts/{}", made["id"].as_str().unwrap());
    let long = |count| "x".repeat(count);
    for (field, value, at, code) in [
        ("title", json!(" "), "title", "empty"),
        ("title", json!(long(201)), "title", "too_long"),
        ("title", json!("a\0b"), "title", "nul"),
        ("title", json!(5), "title", "wrong_type"),
        ("content", json!(long(262_145)), "content", "too_long"),
        ("content", json!("\0"), "content", "nul"),
        ("summary", json!(long(501)), "summary", "too_long"),
        ("summary", json!("\0"), "summary", "nul"),
        ("tags", json!(vec!["a"; 11]), "tags", "too_many"),
        ("tags", json!(["a", long(41)]), "tags.1", "too_long"),
        ("tags", json!(["!"]), "tags.0", "malformed"),
        ("tags", json!(["a", 5]), "tags.1", "wrong_type"),
        ("tags", json!("a"), "tags", "wrong_type"),
        ("tags", json!(["Rust", "C++", "rust"]), "tags.2", "duplicate"),
        ("tags", json!(["+".repeat(40)]), "tags.0", "too_long"),
        ("slug", json!(""), "slug", "malformed"),
        ("slug", json!("On Writing"), "slug", "malformed"),
        ("slug", json!("-"), "slug", "malformed"),
        ("slug", json!("on--writing"), "slug", "malformed"),
        ("slug", json!(long(81)), "slug", "too_long"),
        ("slug", json!("posts"), "slug", "reserved"),
        ("slug", json!("01890000-0000-7000-8000-000000000000"), "slug", "reserved"),
        ("titel", json!("a"), "titel", "unknown_field"),
    ] {
        let mut body = json!({ "title": "a", "content": "b" });
        body[field] = value.clone();
        let create = service.anne(Method::POST, "/posts").json(&body);
        let revise = service.anne(Method::PATCH, &path).json(&json!({ field: value }));
        for request in [create, revise] {
            let (status, body) = told(request).await;
            let error = &body["errors"][0];
            assert_eq!((status, &error["field"], &error["code"]), (422, &at.into(), &code.into()));
        }
    }
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let service = start().await;
    let body = json!({ "title": "", "tags": ["!", "a", "?"], "slug": "A" });
    let (_, body) = made(&service, body).await;
    let fields: Vec<_> =
        body["errors"].as_array().unwrap().iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["title", "content", "tags.0", "tags.2", "slug"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_before_anything_happens() {
    let service = start().await;
    let post = |media: &str, body: Vec<u8>| {
        service.anne(Method::POST, "/posts").header("content-type", media).body(body)
    };
    let json = "application/json";
    for (request, status, code) in [
        (post(json, b"{".to_vec()), 400, "invalid_request"),
        (post(json, vec![]), 400, "invalid_request"),
        (post(json, b"{\"title\":\"\xff\"}".to_vec()), 400, "invalid_request"),
        (post(json, br#"{"title":"\ud800"}"#.to_vec()), 400, "invalid_request"),
        (post(json, br#"{"title":"a","content":"b"} {}"#.to_vec()), 400, "invalid_request"),
        (post(json, b"[]".to_vec()), 422, "validation_failed"),
        (post(json, b"[".repeat(10_000)), 400, "invalid_request"),
        (
            post(json, br#"{"title":"a","content":"b","title":"c"}"#.to_vec()),
            422,
            "validation_failed",
        ),
        (post("application/merge-patch+json", b"{}".to_vec()), 415, "unsupported_media_type"),
        (post("text/plain", b"{}".to_vec()), 415, "unsupported_media_type"),
        (
            post("application/x-www-form-urlencoded", b"title=a".to_vec()),
            415,
            "unsupported_media_type",
        ),
        (post(json, vec![b' '; (1 << 20) + 1]), 413, "too_large"),
    ] {
        expect(told(request).await, status, code);
    }
    assert_eq!(made(&service, json!({ "title": "a", "content": "b" })).await.1["position"], 2);
}

#[tokio::test]
async fn the_largest_post_is_taken() {
    let service = start().await;
    let body = json!({
        "title": "ü".repeat(200),
        "content": "x".repeat(262_144),
        "summary": "ü".repeat(500),
        "tags": (0..10).map(|n| format!("{n}{}", "x".repeat(39))).collect::<Vec<_>>(),
        "slug": "x".repeat(80),
    });
    assert_eq!(made(&service, body).await.0, 201);
}

#[tokio::test]
async fn a_service_says_that_it_is_ready() {
    let service = start().await;
    assert_eq!(service.ops("/health/live").await.status(), 200);
    eventually("the service is ready", async || service.ops("/health/ready").await.status() == 200)
        .await;
    told(service.anne(Method::GET, "/posts")).await;
    let numbers = service.ops("/metrics").await.text().await.unwrap();
    assert!(
        numbers.contains("http_requests_total{route=\"/posts\",method=\"GET\",status=\"405\"}")
    );
}

#[tokio::test]
async fn a_stop_finishes_what_was_accepted() {
    let service = start().await;
    let requests: Vec<_> = (0..50)
        .map(|n| {
            let body = json!({ "title": format!("a {n}"), "content": "b" });
            tokio::spawn(service.anne(Method::POST, "/posts").json(&body).send())
        })
        .collect();
    let first = service.anne(Method::POST, "/posts").json(&json!({ "title": "a", "content": "b" }));
    assert_eq!(told(first).await.0, 201);
    service.stop().await.unwrap();
    for request in requests {
        // One that came too late finds the port closed; none is accepted and then forgotten.
        if let Ok(answer) = request.await.unwrap() {
            assert_eq!(answer.status(), 201);
        }
    }
}

#[tokio::test]
async fn beside_an_event_stands_who_caused_it() {
    let service = start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let post = service.anne(Method::POST, "/posts").json(&json!({ "title": "a", "content": "b" }));
    let post = post.header("traceparent", trace).header("x-request-id", "mine");
    assert_eq!(told(post).await.0, 201);
    let kept: Vec<Value> = sqlx::query_scalar("SELECT metadata FROM events ORDER BY position")
        .fetch_all(&mut service.database().connect().await)
        .await
        .unwrap();
    let expected = json!({ "actor": "anne", "traceparent": trace, "request_id": "mine" });
    assert_eq!(kept, vec![expected; 2]);
}

#[tokio::test]
async fn commands_beyond_what_may_wait_are_turned_away() {
    let service = start_with(new_database().await, &["--queue-kib=2048"]).await;
    let mut postgres = service.database().connect().await;
    let mut standstill = postgres.begin().await.unwrap();
    standstill.execute("LOCK TABLE events IN EXCLUSIVE MODE").await.unwrap();
    let body = json!({ "title": "a", "content": "x".repeat(250_000) });
    let post = || service.anne(Method::POST, "/posts").json(&body).send();
    let mut offered = JoinSet::new();
    for _ in 0..12 {
        offered.spawn(post());
    }
    // There is room for eight of them, who wait.
    for _ in 0..4 {
        let answer = timeout(Duration::from_secs(60), offered.join_next()).await;
        let answer = answer.expect("nobody is turned away").unwrap().unwrap().unwrap();
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["retry-after"].as_bytes()),
            (503, &b"1"[..])
        );
    }
    standstill.rollback().await.unwrap();
    for answer in offered.join_all().await {
        assert_eq!(answer.unwrap().status(), 201);
    }
}

async fn made(service: &Service, body: Value) -> (u16, Value) {
    told(service.anne(Method::POST, "/posts").json(&body)).await
}

#[track_caller]
fn expect((told_status, told): (u16, Value), status: u16, code: &str) {
    assert_eq!((told_status, &told["code"]), (status, &json!(code)), "{told}");
    assert_eq!(told["status"], status);
}

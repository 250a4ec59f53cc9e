//! Any command can be repeated without fear, and two editors do not overwrite each other.

use std::collections::HashSet;
use std::time::Duration;

use domain::{Partitions, Point, Position};
use http_api::{ConsistencyTokens, ShownToken};
use read_model::{KeySpace, NewEpoch, Views};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::{TestDatabase, eventually, eventually_within, shared};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{Service, start, start_with, token, told};

#[tokio::test]
async fn a_command_repeated_with_its_key_is_answered_as_the_first_time() {
    let service = start().await;
    let publish = || {
        let body = json!({ "title": "On writing", "content": "Begin." });
        service.anne(Method::POST, "/posts").header("idempotency-key", "k-1").json(&body)
    };
    let first = publish().send().await.unwrap();
    assert_eq!(first.status(), 201);
    assert_eq!(first.headers().get("idempotent-replayed"), None);
    let again = publish().send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    for name in ["etag", "location", "consistency-token", "content-type"] {
        assert_eq!(again.headers()[name], first.headers()[name], "{name}");
    }
    assert_eq!(answer(again).await, answer(first).await);
    assert_eq!(events(service.database()).await, 2);
}

#[tokio::test]
async fn a_kept_answer_stays_what_it_was_when_the_post_goes_on() {
    let service = start().await;
    let id = publish(&service, "On writing").await;
    let revise = || {
        let path = format!("/posts/{id}");
        let body = json!({ "title": "On reading" });
        service.anne(Method::PATCH, &path).header("idempotency-key", "k-1").json(&body)
    };
    let (_, first) = told(revise()).await;
    assert_eq!(first["version"], 3);
    told(service.anne(Method::DELETE, &format!("/posts/{id}"))).await;
    assert_eq!(told(revise()).await, (200, first));
}

#[tokio::test]
async fn refusals_are_kept_under_their_key() {
    let service = start().await;
    let id = publish(&service, "On writing").await;
    let path = format!("/posts/{id}");
    let nowhere = format!("/posts/{}", Uuid::now_v7());
    told(
        service
            .anne(Method::POST, "/posts")
            .json(&json!({"title": "a", "content": "", "slug": "mine"})),
    )
    .await;

    let bob = |key| {
        let request = service.request(Method::DELETE, &path).bearer_auth(token("bob"));
        request.header("idempotency-key", key)
    };
    let anne = |method, path: &str, key: &str| {
        service.anne(method, path).header("idempotency-key", key.to_owned())
    };
    let cases = [
        (403, "forbidden", bob("1")),
        (404, "not_found", anne(Method::DELETE, &nowhere, "2")),
        (412, "precondition_failed", anne(Method::DELETE, &path, "3").header("if-match", "\"1\"")),
        (409, "slug_taken", anne(Method::PATCH, &path, "4").json(&json!({ "slug": "mine" }))),
    ];
    for (status, code, request) in cases {
        let again = request.try_clone().unwrap();
        let (first_status, mut first) = told(request).await;
        assert_eq!((first_status, &first["code"]), (status, &json!(code)));
        let again = again.send().await.unwrap();
        assert_eq!(again.headers()["idempotent-replayed"], "true", "{code}");
        let (again_status, mut again) = (again.status().as_u16(), answer(again).await);
        // Each request has an id of its own.
        assert_ne!(first["request_id"].take(), again["request_id"].take());
        assert_eq!((again_status, again), (status, first));
    }
    told(service.anne(Method::DELETE, &path)).await;
    let gone = || anne(Method::POST, &format!("{path}/publish"), "5");
    assert_eq!(told(gone()).await.0, 410);
    assert_eq!(gone().send().await.unwrap().headers()["idempotent-replayed"], "true");
    assert_eq!(keys(service.database()).await, 5);
}

#[tokio::test]
async fn what_may_go_better_the_next_time_is_not_kept() {
    let service = start().await;
    let with_key = |body: Value| {
        service.anne(Method::POST, "/posts").header("idempotency-key", "k-1").json(&body)
    };
    assert_eq!(told(with_key(json!({ "title": "" }))).await.0, 422);
    let no_token = service.request(Method::POST, "/posts").header("idempotency-key", "k-1");
    assert_eq!(told(no_token.json(&json!({}))).await.0, 401);
    assert_eq!(keys(service.database()).await, 0);
    assert_eq!(told(with_key(json!({ "title": "a", "content": "" }))).await.0, 201);
}

#[tokio::test]
async fn a_key_belongs_to_one_request_of_one_author() {
    let service = start().await;
    let body = json!({ "title": "On writing", "content": "Begin." });
    let post = |author, body: &Value| {
        let request = service.request(Method::POST, "/posts").bearer_auth(token(author));
        request.header("idempotency-key", "k-1").json(body)
    };
    assert_eq!(told(post("anne", &body)).await.0, 201);
    assert_eq!(told(post("bob", &body)).await.0, 201);
    let (status, problem) = told(post("anne", &json!({ "title": "Other", "content": "" }))).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency_key_reused")));
    let elsewhere =
        service.anne(Method::POST, "/post").header("idempotency-key", "k-1").json(&body);
    assert_eq!(told(elsewhere).await.0, 422);
    assert_eq!(events(service.database()).await, 4);

    // What it demands belongs to a request, too.
    let id = publish(&service, "On reading").await;
    let delete = |version: &str| {
        let request = service.anne(Method::DELETE, &format!("/posts/{id}"));
        request.header("idempotency-key", "k-2").header("if-match", version)
    };
    assert_eq!(told(delete("\"1\"")).await.0, 412);
    assert_eq!(told(delete("\"2\"")).await.1["code"], "idempotency_key_reused");
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused() {
    let service = start().await;
    let body = json!({ "title": "On writing", "content": "Begin." });
    let post = || service.anne(Method::POST, "/posts").json(&body);
    for bad in ["", "a b", "ä", &"x".repeat(256)] {
        let (status, problem) = told(post().header("idempotency-key", bad)).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")), "{bad:?}");
    }
    let twice = post().header("idempotency-key", "a").header("idempotency-key", "b");
    assert_eq!(told(twice).await.0, 400);
    assert_eq!(told(post().header("idempotency-key", "x".repeat(255))).await.0, 201);
}

#[tokio::test]
async fn the_same_request_may_be_written_in_another_way() {
    let service = start().await;
    let send = async |path: &str, media: &str, body: &str| {
        let request = service.anne(Method::POST, path).header("idempotency-key", path.len());
        let response =
            request.header("content-type", media).body(body.to_owned()).send().await.unwrap();
        let replayed = response.headers().contains_key("idempotent-replayed");
        (response.status().as_u16(), replayed, answer(response).await["id"].clone())
    };
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    let (status, _, id) =
        send("/posts", json, r#"{"title":"a","content":"b","tags":["c","d"],"summary":null}"#)
            .await;
    assert_eq!(status, 201);
    for same in [
        r#" { "content" : "b", "tags": ["c", "d"], "title" : "a" } "#,
        r#"{"title":"\u0061","content":"b","tags":["c","d"]}"#,
    ] {
        assert_eq!(send("/posts", json, same).await, (201, true, id.clone()), "{same}");
    }
    for other in [
        r#"{"title":"a","content":"b","tags":["d","c"]}"#,
        r#"{"title":"a","content":"b"}"#,
        r#"{"title":"a","content":"b","tags":["c","d"],"status":"draft"}"#,
    ] {
        assert_eq!(send("/posts", json, other).await.0, 422, "{other}");
    }

    let (status, _, id) = send("/post", form, "title=On+writing&content=%62").await;
    assert_eq!(status, 201);
    for (media, same) in
        [(form, "content=b&title=On%20writing"), (json, r#"{"content":"b","title":"On writing"}"#)]
    {
        assert_eq!(send("/post", media, same).await, (201, true, id.clone()), "{same}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_sent_fifty_times_at_once_to_two_processes_makes_one_post() {
    let first = start().await;
    let second = start_with(first.database().clone(), &[]).await;
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let service = if number % 2 == 0 { &first } else { &second };
        let body = json!({ "title": "On writing", "content": "Begin." });
        let request =
            service.anne(Method::POST, "/posts").header("idempotency-key", "k").json(&body);
        requests.spawn(told(request));
    }
    let answers: HashSet<String> =
        requests.join_all().await.into_iter().map(|answer| format!("{answer:?}")).collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| answer.starts_with("(201")), "{answers:?}");
    assert_eq!(events(first.database()).await, 2);
}

#[tokio::test]
async fn old_keys_are_removed() {
    let service = start().await;
    let body = json!({ "title": "On writing", "content": "Begin." });
    let with_key =
        |key| service.anne(Method::POST, "/posts").header("idempotency-key", key).json(&body);
    told(with_key("old")).await;
    sqlx::query("UPDATE idempotency_keys SET recorded_at = recorded_at - interval '25 hours'")
        .execute(&mut service.database().connect().await)
        .await
        .unwrap();
    told(with_key("new")).await;
    // Looked for when a process starts, and every minute.
    let other = start_with(service.database().clone(), &[]).await;
    let two_rounds = Duration::from_secs(130);
    eventually_within(two_rounds, "the old key is gone", async || {
        keys(other.database()).await == 1
    })
    .await;
    let again = with_key("new").send().await.unwrap();
    assert_eq!(again.headers()["idempotent-replayed"], "true");
}

#[tokio::test]
async fn if_match_lets_a_command_through_at_its_version_only() {
    let service = start().await;
    let id = publish(&service, "On writing").await;
    let path = format!("/posts/{id}");
    let revise = |tag: &str, title: &str| {
        service.anne(Method::PATCH, &path).header("if-match", tag).json(&json!({ "title": title }))
    };
    let (status, problem) = told(revise("\"1\"", "a")).await;
    assert_eq!((status, &problem["version"]), (412, &json!(2)));
    assert_eq!(told(revise("\"1\", \"2\"", "a")).await.0, 200);
    assert_eq!(told(revise("*", "b")).await.0, 200);
    assert_eq!(problem["code"], "precondition_failed");
    // A proxy that compresses weakens the entity tag of a response.
    assert_eq!(told(revise("\"x,y\", W/\"4\",", "c")).await.0, 200);
    for unknown in ["\"4\"", "\"x\"", "\"05\"", "\"v4-5\"", ""] {
        assert_eq!(told(revise(unknown, "d")).await.0, 412, "{unknown}");
    }
    for malformed in ["5", "\"5", "\"5\", *", "\"5\" \"6\""] {
        assert_eq!(told(revise(malformed, "d")).await.0, 400, "{malformed}");
    }
    // What is refused for another reason says that reason.
    let nowhere = format!("/posts/{}", Uuid::now_v7());
    let request = service.anne(Method::DELETE, &nowhere).header("if-match", "*");
    assert_eq!(told(request).await.0, 404);
    assert_eq!(events(service.database()).await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_revisions_of_many_editors_are_exactly_those_that_were_accepted() {
    const EDITORS: usize = 16;
    const ROUNDS: usize = 100;
    let first = start().await;
    let second = start_with(first.database().clone(), &[]).await;
    let id = publish(&first, "On writing").await;
    let path = format!("/posts/{id}");
    let mut version = 2_u64;
    let mut accepted = 0;
    for round in 0..ROUNDS {
        let mut editors = JoinSet::new();
        for editor in 0..EDITORS {
            let service = if editor % 2 == 0 { &first } else { &second };
            let body = json!({ "title": format!("Round {round}, editor {editor}") });
            let request =
                service.anne(Method::PATCH, &path).header("if-match", format!("\"{version}\""));
            editors.spawn(told(request.json(&body)));
        }
        let answers = editors.join_all().await;
        let won: Vec<&Value> =
            answers.iter().filter(|(status, _)| *status == 200).map(|(_, body)| body).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        assert!(answers.iter().all(|(status, _)| matches!(status, 200 | 412)), "{answers:?}");
        version = won[0]["version"].as_u64().unwrap();
        accepted += 1;
    }
    assert_eq!(version, 2 + accepted);
    assert_eq!(events(first.database()).await, 2 + i64::try_from(ROUNDS).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_posts_of_one_title_get_a_thousand_slugs() {
    let service = start().await;
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        let body = json!({ "title": "On writing", "content": "Begin." });
        requests.spawn(told(service.anne(Method::POST, "/posts").json(&body)));
    }
    let answers = requests.join_all().await;
    let others: Vec<_> = answers.iter().filter(|(status, _)| *status != 201).collect();
    assert!(others.is_empty(), "{others:?}");
    let slugs: HashSet<&str> =
        answers.iter().map(|(_, body)| body["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs.len(), 1000);
    assert!(slugs.contains("on-writing"));
}

#[tokio::test]
async fn a_token_gathers_the_writes_that_it_was_shown() {
    let service = start().await;
    let mut positions = HashSet::new();
    let mut shown: Option<String> = None;
    for number in 0..10 {
        let body = json!({ "title": format!("Post {number}"), "content": "" });
        let mut request = service.anne(Method::POST, "/posts").json(&body);
        if let Some(token) = &shown {
            // In turn, as the two ways in which it travels.
            request = match number % 2 {
                0 => request.header("consistency-token", token),
                _ => request.header("cookie", format!("consistency={token}")),
            };
        }
        let response = request.send().await.unwrap();
        let token = response.headers()["consistency-token"].to_str().unwrap().to_owned();
        let cookie = format!("consistency={token}; Path=/; SameSite=Lax; Max-Age=60");
        assert_eq!(response.headers()["set-cookie"].to_str().unwrap(), cookie);
        positions.insert(answer(response).await["position"].as_u64().unwrap());
        shown = Some(token);
    }
    let pool = PgPool::connect(service.database().url()).await.unwrap();
    let store = event_log::open(&pool).await.unwrap();
    let tokens = ConsistencyTokens::new(1, store.token_key.0, store.partitions);
    let Ok(ShownToken::Token(token)) = tokens.open(&shown.unwrap()) else {
        panic!("it is not of this store")
    };
    assert_eq!(token.incarnation, 1);
    assert!(token.positions.len() <= 4);
    // The latest in each partition: no two writes share a position.
    assert!(token.positions.values().all(|position| positions.contains(&position.0)));
    assert_eq!(token.positions.values().max(), Some(&Position(20)));

    let garbage = service.anne(Method::POST, "/posts").header("consistency-token", "garbage");
    let (status, problem) = told(garbage.json(&json!({ "title": "a", "content": "" }))).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn a_client_may_wait_for_the_views() {
    let service = start().await;
    let post = |wait: &str| {
        let body = json!({ "title": "On writing", "content": "Begin." });
        service.anne(Method::POST, "/posts").header("prefer", wait.to_owned()).json(&body)
    };
    // Nobody projects, so the views never come.
    let late = post("wait=1").send().await.unwrap();
    assert_eq!(late.status(), 201);
    assert_eq!(late.headers().get("preference-applied"), None);

    let partitions = Partitions::new(4).unwrap();
    let keys = KeySpace::new(service.prefix()).unwrap();
    let views = Views::new(&shared().redis_url, keys, partitions, Duration::from_secs(60)).unwrap();
    let waiting = tokio::spawn(post("respond-async, wait=10").send());
    eventually("the post is recorded", async || events(service.database()).await == 4).await;
    for partition in partitions.all() {
        let head = Point { position: Position(4), event_id: Uuid::nil() };
        let epoch = "an epoch".to_owned();
        views
            .begin_epoch(&NewEpoch { partition, incarnation: 1, epoch, head, found: None })
            .await
            .unwrap();
    }
    let response = waiting.await.unwrap().unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["preference-applied"]),
        (201, &"wait".parse().unwrap())
    );
}

async fn publish(service: &Service, title: &str) -> String {
    let body = json!({ "title": title, "content": "Begin." });
    let (status, body) = told(service.anne(Method::POST, "/posts").json(&body)).await;
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn answer(response: Response) -> Value {
    response.json().await.unwrap()
}

async fn events(database: &TestDatabase) -> i64 {
    count(database, "SELECT count(*) FROM events").await
}

async fn keys(database: &TestDatabase) -> i64 {
    count(database, "SELECT count(*) FROM idempotency_keys").await
}

async fn count(database: &TestDatabase, sql: &str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut database.connect().await).await.unwrap()
}

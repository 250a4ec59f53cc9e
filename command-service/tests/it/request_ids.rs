//! Every request has an id, by which its response, its problem document and its events name it.

use reqwest::Method;
use serde_json::json;

use crate::support::start;

#[tokio::test]
async fn events_and_responses_name_the_request() {
    let service = start().await;
    let body = json!({ "title": "a", "content": "b", "status": "draft" });
    let request = service.anne(Method::POST, "/posts").json(&body);
    let answer = request.header("x-request-id", "id-of-the-client").send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["x-request-id"]),
        (201, &"id-of-the-client".parse().unwrap())
    );
    let answer = service.anne(Method::POST, "/posts").json(&body).send().await.unwrap();
    let made = answer.headers()["x-request-id"].to_str().unwrap().to_owned();

    let mut connection = service.database().connect().await;
    let recorded: Vec<Option<String>> =
        sqlx::query_scalar("SELECT metadata->>'request_id' FROM events ORDER BY position")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(recorded, [Some("id-of-the-client".to_owned()), Some(made)]);
}

#[tokio::test]
async fn problem_documents_name_the_request() {
    let service = start().await;
    for (path, status) in [("/posts", 401), ("/nowhere", 404)] {
        let request = service.request(Method::POST, path).header("x-request-id", "mine");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["x-request-id"], "mine");
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["request_id"], "mine");
    }
}

//! Commands on one post at the same moment take turns in a process, instead of losing against each other.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::json;
use testkit::eventually;
use tokio::task::JoinSet;

use crate::append::{hold_the_lock, release_the_lock, waiting_for_the_lock};
use crate::support::{Service, new_database, start, start_with, told};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_unconditional_changes_of_one_post_at_once_all_succeed() {
    let service = start().await;
    let post = draft(&service).await;
    let mut clients = JoinSet::new();
    for number in 0..100 {
        clients.spawn(told(rename(&service, &post, &format!("Title {number}"))));
    }
    let answers = clients.join_all().await;
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(refused.is_empty(), "{} were refused: {:?}", refused.len(), refused[0]);
    let mut versions: Vec<_> = answers.iter().map(|(_, post)| post["version"].as_u64()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (2..=101).map(Some).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_waits_for_the_commit_of_a_client_that_has_gone() {
    let service = start().await;
    let post = draft(&service).await;
    let mut lock = hold_the_lock(service.database()).await;
    let mut watcher = service.database().connect().await;
    let gone = tokio::spawn(told(rename(&service, &post, "Same")));
    eventually("the call is there", async || waiting_for_the_lock(&mut watcher).await == 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let next = tokio::spawn(told(rename(&service, &post, "Same")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    release_the_lock(&mut lock).await;
    // It found the title that the commit before has left.
    let (status, answer) = next.await.unwrap();
    assert_eq!((status, &answer["version"]), (200, &json!(2)), "{answer}");
    let (status, answer) = told(rename(&service, &post, "Other")).await;
    assert_eq!((status, &answer["version"]), (200, &json!(3)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_waits_for_its_turn_no_longer_than_it_may_take() {
    let service = start_with(new_database().await, &["--request-seconds=8"]).await;
    let post = draft(&service).await;
    let mut lock = hold_the_lock(service.database()).await;
    let mut watcher = service.database().connect().await;
    let first = tokio::spawn(told(rename(&service, &post, "First")));
    eventually("the call is there", async || waiting_for_the_lock(&mut watcher).await == 1).await;
    let (status, problem) = told(rename(&service, &post, "Second")).await;
    // The first call ends near the deadline of the second, which may have been sent by then.
    let answer = (status, problem["code"].as_str().unwrap());
    assert!([(503, "unavailable"), (504, "outcome_unknown")].contains(&answer), "{problem}");
    assert!(first.await.unwrap().0 >= 500);
    release_the_lock(&mut lock).await;
    eventually("the post has its turns again", async || {
        told(rename(&service, &post, "Third")).await.0 == 200
    })
    .await;
}

async fn draft(service: &Service) -> String {
    let body = json!({ "title": "Begin", "content": "Begin.", "status": "draft" });
    let (status, post) = told(service.anne(Method::POST, "/posts").json(&body)).await;
    assert_eq!(status, 201, "{post}");
    post["id"].as_str().unwrap().to_owned()
}

fn rename(service: &Service, post: &str, title: &str) -> RequestBuilder {
    service.anne(Method::PATCH, &format!("/posts/{post}")).json(&json!({ "title": title }))
}

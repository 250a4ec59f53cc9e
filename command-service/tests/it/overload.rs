//! Offered more than it can take, the service says so early, answers what it has accepted, and recovers.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use testkit::eventually;
use tokio::task::JoinSet;

use crate::append::{hold_the_lock, waiting_for_the_lock};
use crate::support::{Service, new_database, start, start_with, told};

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_slow_postgres_commands_are_turned_away_before_they_wait() {
    let service = start_with(new_database().await, &["--queue-ms=100"]).await;
    let lock = hold_the_lock(service.database()).await;
    let mut watcher = service.database().connect().await;
    let accepted = tokio::spawn(told(request(&service, 0)));
    eventually("it has come to Postgres", async || waiting_for_the_lock(&mut watcher).await >= 1)
        .await;
    // From now on it has been in hand for longer than anybody may wait.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let answer = request(&service, 1).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["retry-after"].as_bytes()),
        (503, &b"1"[..])
    );

    let mut offered = JoinSet::new();
    for number in 0..500 {
        offered.spawn(told(request(&service, number)));
    }
    // All of them are answered although Postgres does nothing.
    for (status, problem) in offered.join_all().await {
        assert_eq!((status, &problem["code"]), (503, &json!("unavailable")));
    }

    lock.close().await.unwrap();
    assert_eq!(accepted.await.unwrap().0, 201);
    for number in 0..20 {
        assert_eq!(publish(&service, number).await.0, 201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offered_more_than_it_can_take_it_answers_every_one_and_what_it_accepts_is_recorded() {
    let service = start_with(new_database().await, &["--queue-ms=10"]).await;
    let mut connection = service.database().connect().await;
    connection.execute(SLOW_INSERTS).await.unwrap();
    let mut clients = JoinSet::new();
    for client in 0..300 {
        let request = request(&service, client);
        clients.spawn(async move {
            let mut outcomes = vec![];
            for _ in 0..4 {
                outcomes.push(told(request.try_clone().unwrap()).await);
            }
            outcomes
        });
    }
    let outcomes: Vec<(u16, Value)> = clients.join_all().await.into_iter().flatten().collect();
    let with = |status| outcomes.iter().filter(|outcome| outcome.0 == status).count();
    assert_eq!(with(201) + with(503), outcomes.len());
    assert!(with(201) > 0 && with(503) > 0, "{} of {} accepted", with(201), outcomes.len());
    let recorded: i64 =
        sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&mut connection).await.unwrap();
    assert_eq!(recorded.unsigned_abs(), with(201) as u64, "a 503 was recorded, or a 201 was not");
    connection.execute("DROP TRIGGER slow_inserts ON events").await.unwrap();
    assert_eq!(publish(&service, 0).await.0, 201);
}

#[tokio::test]
async fn every_number_is_explained() {
    let service = start().await;
    publish(&service, 0).await;
    let numbers = service.ops("/metrics").await.text().await.unwrap();
    for metric in command_service::METRICS {
        // Those of what has not happened yet are not there yet.
        let name = metric.name;
        let told = numbers.contains(&format!("# HELP {name} {}", metric.help));
        assert!(told || !numbers.contains(&format!("\n{name}")), "{name} is not explained");
    }
    for name in ["commands_total{command=\"create\",outcome=\"done\"}", "append_batch_size_bucket"]
    {
        assert!(numbers.contains(name), "{name} is missing from\n{numbers}");
    }
}

fn request(service: &Service, number: usize) -> reqwest::RequestBuilder {
    let body =
        json!({ "title": format!("Number {number}"), "content": "Begin.", "status": "draft" });
    service.anne(Method::POST, "/posts").json(&body)
}

async fn publish(service: &Service, number: usize) -> (u16, Value) {
    told(request(service, number)).await
}

/// As long as it is there, a call takes much longer than the queue is meant to make anybody wait.
const SLOW_INSERTS: &str = "
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(0.05);
        RETURN NULL;
    END $$;
    CREATE TRIGGER slow_inserts AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION be_slow()";

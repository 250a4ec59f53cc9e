//! A clock of Postgres that was ahead and is set back.

use reqwest::Method;
use serde_json::{Value, json};
use testkit::eventually;

use crate::support::{Service, start, told};

#[tokio::test]
async fn events_ahead_of_the_clock_are_reported_until_it_has_caught_up() {
    let service = start().await;
    let body = json!({ "title": "On writing", "content": "Begin." });
    assert_eq!(told(service.anne(Method::POST, "/posts").json(&body)).await.0, 201);
    eventually("it is compared", async || ahead(&service).await == Some(0.0)).await;
    assert_eq!(clock(&service).await, json!({ "ready": true }));

    let mut connection = service.database().connect().await;
    let shift = "UPDATE events SET recorded_at = recorded_at + $1::interval WHERE position = 2";
    sqlx::query(shift).bind("1 hour").execute(&mut connection).await.unwrap();
    eventually("it is noticed", async || clock(&service).await["degraded"] == true).await;
    // Commands go on, and their events do not hide the one that is ahead.
    assert_eq!(service.ops("/health/ready").await.status(), 200);
    assert_eq!(told(service.anne(Method::POST, "/posts").json(&body)).await.0, 201);
    assert!(ahead(&service).await.unwrap() > 3000.0);

    sqlx::query(shift).bind("-1 hour").execute(&mut connection).await.unwrap();
    let ready = json!({ "ready": true });
    eventually("it has caught up", async || clock(&service).await == ready).await;
}

async fn clock(service: &Service) -> Value {
    let checks: Value = service.ops("/health/ready").await.json().await.unwrap();
    checks["checks"]["clock"].clone()
}

async fn ahead(service: &Service) -> Option<f64> {
    let numbers = service.ops("/metrics").await.text().await.unwrap();
    numbers.lines().find_map(|line| line.strip_prefix("event_time_ahead_seconds ")?.parse().ok())
}

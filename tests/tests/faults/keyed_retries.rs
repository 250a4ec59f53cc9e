//! A command with a key happens once, whatever dies in between.

use journeys::{Answer, Blog};
use serde_json::Value;
use tokio::task::JoinSet;

#[tokio::test]
async fn one_request_sent_many_times_to_two_services_one_of_them_killed_makes_one_post() {
    let mut blog = Blog::start().await;
    let other = blog.another_command_service().await;
    let anne = blog.sign_up("anne");
    let (first, second) = (blog.command.url(), other.url());
    let lock = blog.hold_up_commits().await;
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let (anne, service) =
            (anne.clone(), if number % 2 == 0 { &first } else { &second }.clone());
        requests.spawn(async move { anne.publish_with_key(&service, "a-key", "On writing").await });
    }
    let lock = lock.waited_for_by(2).await;
    blog.command.kill();
    // What Postgres has in hand of the dead one is recorded now, or what it has of the other.
    lock.release().await;

    let mut answers = requests.join_all().await;
    // Whoever was not answered asks again.
    answers.push(anne.publish_with_key(&second, "a-key", "On writing").await);
    let told = |answer: Answer| (answer.status, answer.body);
    let answers: Vec<(u16, Value)> = answers.into_iter().flatten().map(told).collect();
    assert!(answers.len() > 1, "{answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, 201);
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events")
        .fetch_one(&mut blog.postgres().await)
        .await
        .unwrap();
    assert_eq!(events, 2, "one post was drafted and published");
}

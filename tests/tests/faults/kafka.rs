//! Kafka is an accelerator: without it everything is recorded, readable, and even listed.

use journeys::{Blog, Ground, Load, Onlooker};
use testkit::{eventually, own_kafka};

#[tokio::test]
async fn while_kafka_is_gone_posts_are_accepted_readable_and_listed() {
    let mut kafka = own_kafka().await;
    let ground = Ground { kafka: kafka.brokers(), ..Ground::shared().await };
    let blog = Blog::start_on(ground, &[]).await;
    let authors = blog.sign_up_all(["anne", "bob", "carl", "dora"]);
    let reader = blog.reader();
    let mut load = Load::begin(&authors, 200);
    let onlooker = Onlooker::of(&reader, &load.published());

    load.reached(60).await;
    kafka.kill().expect("Kafka could not be killed");
    let outcome = load.end().await;

    assert!(outcome.unknown.is_empty(), "{outcome:?}");
    let (seen, unseen) =
        (authors[0].publish("A rumour").await, authors[1].publish("A secret").await);
    assert!(reader.can_read(&seen).await);
    // What is read finds its way into the lists for that alone. This one has to be brought from the log.
    eventually("the list has it", async || reader.finds(&unseen, "").await).await;
    blog.agrees_with(&blog.log().await).await;
    assert!(blog.outbox().await > 0, "somebody has carried it all to Kafka");

    kafka.restart().await.expect("Kafka did not come back");
    let more = authors[2].publish("With Kafka").await;
    blog.has_kept_its_word(&outcome.and(seen).and(unseen).and(more)).await;
    onlooker.saw_nothing_wrong().await;
}

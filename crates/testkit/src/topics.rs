//! Topics for tests.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    types::RDKafkaErrorCode,
};

use crate::eventually;

const LIMIT: Duration = Duration::from_secs(15);

/// Creates a topic and waits until each partition has a leader.
///
/// # Panics
///
/// If Kafka refuses or does not answer.
pub async fn create_topic(brokers: &str, name: &str, partitions: usize) {
    let count = i32::try_from(partitions).expect("a topic has fewer partitions");
    let topic = NewTopic::new(name, count, TopicReplication::Fixed(1));
    let (admin, options) = (admin(brokers), AdminOptions::new().request_timeout(Some(LIMIT)));
    eventually("the topic is created", async || {
        let created = admin.create_topics([&topic], &options).await.expect("Kafka did not answer");
        match created.into_iter().next() {
            Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => true,
            // The one broker was silent for so long that it counts as gone, until it is heard of again.
            Some(Err((_, RDKafkaErrorCode::InvalidReplicationFactor))) => false,
            refused => panic!("could not create the topic {name}: {refused:?}"),
        }
    })
    .await;
    eventually("every partition of the new topic has a leader", async || {
        leaders(brokers, name).await == partitions
    })
    .await;
}

/// # Panics
///
/// If Kafka refuses or does not answer.
pub async fn delete_topic(brokers: &str, name: &str) {
    let results = admin(brokers)
        .delete_topics(&[name], &AdminOptions::new().request_timeout(Some(LIMIT)))
        .await
        .expect("Kafka did not answer");
    for result in results {
        result.unwrap_or_else(|(topic, code)| panic!("could not delete the topic {topic}: {code}"));
    }
}

/// Gives a topic more partitions.
///
/// # Panics
///
/// If Kafka refuses or does not answer.
pub async fn extend_topic(brokers: &str, name: &str, partitions: usize) {
    let new = NewPartitions::new(name, partitions);
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    let extended = admin(brokers).create_partitions([&new], &options).await;
    for result in extended.expect("Kafka did not answer") {
        result.unwrap_or_else(|(topic, code)| panic!("could not extend the topic {topic}: {code}"));
    }
}

/// Sets a topic's settings; all others come back to the broker's defaults.
///
/// # Panics
///
/// If Kafka refuses or does not answer.
pub async fn configure_topic(brokers: &str, name: &str, settings: &[(&str, &str)]) {
    let topic = AlterConfig::new(ResourceSpecifier::Topic(name));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    let altered = admin(brokers).alter_configs([&topic], &options).await;
    for result in altered.expect("Kafka did not answer") {
        result.unwrap_or_else(|(_, code)| panic!("could not configure the topic {name}: {code}"));
    }
}

/// Returns a topic's setting.
///
/// # Panics
///
/// If Kafka does not answer.
pub async fn topic_setting(brokers: &str, name: &str, setting: &str) -> Option<String> {
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    let topic = [ResourceSpecifier::Topic(name)];
    let described = admin(brokers).describe_configs(&topic, &options).await;
    let settings = described.expect("Kafka did not answer").pop()?.ok()?;
    settings.get(setting)?.value.clone()
}

/// How many partitions a topic has; 0 if there is no such topic.
///
/// # Panics
///
/// If Kafka does not answer.
pub async fn topic_partitions(brokers: &str, name: &str) -> usize {
    partitions(brokers, name).await.len()
}

async fn leaders(brokers: &str, name: &str) -> usize {
    partitions(brokers, name).await.into_iter().filter(|leader| *leader >= 0).count()
}

/// The leader of each partition, -1 where there is none.
async fn partitions(brokers: &str, name: &str) -> Vec<i32> {
    let (brokers, name) = (brokers.to_owned(), name.to_owned());
    tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .create()
            .expect("a Kafka client was not made");
        let cluster = client.fetch_metadata(Some(&name), LIMIT).expect("Kafka did not answer");
        let topics = cluster.topics().iter();
        topics.flat_map(|topic| topic.partitions()).map(|partition| partition.leader()).collect()
    })
    .await
    .expect("asking Kafka panicked")
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a Kafka client was not made")
}

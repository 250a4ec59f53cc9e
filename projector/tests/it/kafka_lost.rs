//! Kafka has forgotten what it had acknowledged: the views are complete and current all the same.

use domain::{Partition, Position};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};
use testkit::{
    Kafka, create_topic, delete_topic, eventually, extend_topic, own_kafka, topic_partitions,
};

use crate::support::{Blog, PARTITIONS, Projector};

#[tokio::test]
async fn a_topic_that_comes_back_empty_is_read_from_its_beginning() {
    let (kafka, blog, projector) = in_use().await;
    let epochs = blog.epochs().await;
    blog.loses_its_topic(&kafka, PARTITIONS.into()).await;
    // What was lost with the topic is sent by nobody again.
    blog.publish_in_all(2).await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(2).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    // Kafka is heard of again in the new topic, and not only the log: this one has all the time in the world.
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn so_is_one_that_was_emptied_while_nobody_read() {
    let (kafka, blog, projector) = in_use().await;
    projector.stop().await;
    let epochs = blog.epochs().await;
    blog.loses_its_topic(&kafka, PARTITIONS.into()).await;
    blog.publish_in_all(2).await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn a_quiet_topic_that_came_back_empty_is_made_up_for_by_the_log() {
    let (kafka, blog, projector) = in_use().await;
    projector.stop().await;
    let epochs = blog.epochs().await;
    blog.publish_in_all(3).await;
    blog.relay_after(Position::ZERO).await;
    blog.loses_its_topic(&kafka, PARTITIONS.into()).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn one_partition_may_lose_what_nobody_has_read_yet() {
    const P: Partition = Partition(2);
    let (kafka, blog, projector) = in_use().await;
    projector.stop().await;
    let epochs = blog.epochs().await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(5).await;
    blog.relay_after(head).await;
    blog.loses_messages_of(&kafka, P).await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(1).await;
    blog.relay_after(head).await;
    let projector = blog.project().await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    projector.stop().await;
}

#[tokio::test]
async fn what_a_topic_with_too_few_partitions_cannot_bring_is_read_from_the_log() {
    let (kafka, blog, projector) = in_use().await;
    projector.stop().await;
    let epochs = blog.epochs().await;
    blog.loses_its_topic(&kafka, 3).await;
    let projector = blog.project_impatiently().await;
    projector.names("has 3 partitions and the store 4").await;
    eventually("it is ready all the same", async || projector.health().await.0 == 200).await;
    blog.publish_in_all(2).await;
    blog.views_agree_with_the_log().await;
    assert_eq!(blog.epochs().await, epochs);
    // One that was lost is filled as well.
    blog.loses(Partition(3)).await;
    blog.views_agree_with_the_log().await;

    blog.loses_its_topic(&kafka, PARTITIONS.into()).await;
    eventually("all is well", async || projector.unready("kafka").await.is_none()).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_topic_with_more_partitions_is_read_all_the_same() {
    let (kafka, blog, projector) = in_use().await;
    extend_topic(&kafka.brokers(), &blog.topic, 7).await;
    projector.names("has 7 partitions and the store 4").await;
    projector.stop().await;
    let projector = blog.project().await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(2).await;
    blog.relay_after(head).await;
    // This one has no patience to lose: Kafka brought them.
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

impl Projector {
    /// Waits until its readiness says this of the topic.
    async fn names(&self, difference: &str) {
        eventually(difference, async || {
            self.unready("kafka").await.is_some_and(|why| why.contains(difference))
        })
        .await;
    }
}

impl Blog {
    /// The topic is deleted, and made anew.
    async fn loses_its_topic(&self, kafka: &Kafka, partitions: usize) {
        delete_topic(&kafka.brokers(), &self.topic).await;
        eventually("the topic is gone", async || {
            topic_partitions(&kafka.brokers(), &self.topic).await == 0
        })
        .await;
        create_topic(&kafka.brokers(), &self.topic, partitions).await;
    }

    async fn loses_messages_of(&self, kafka: &Kafka, partition: Partition) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().unwrap();
        let mut all = TopicPartitionList::new();
        all.add_partition_offset(&self.topic, partition.0.into(), Offset::End).unwrap();
        admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
    }
}

/// A blog whose views are up to date through a Kafka of its own, and a projector that never loses patience.
async fn in_use() -> (Kafka, Blog, Projector) {
    let kafka = own_kafka().await;
    let blog = Blog::with_kafka(&kafka.brokers()).await;
    let projector = blog.project().await;
    blog.has_begun().await;
    blog.publish_in_all(10).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;
    (kafka, blog, projector)
}

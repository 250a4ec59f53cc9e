//! Messages on the topic that are not ours, or are damaged, are kept elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{Partition, Position};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::topic_partition_list::TopicPartitionList;
use testkit::{create_topic, eventually, shared, unique_name};

use crate::support::{Blog, Projector};

const P: Partition = Partition(1);

#[tokio::test]
async fn what_is_not_ours_is_copied_with_the_reason_and_where_it_was() {
    let (blog, projector) = blog_in_use().await;
    let id = blog.publish_in(P).await;
    let ours = blog.messages().await.pop().unwrap();
    let without = |name: &str| {
        let mut headers = ours.headers();
        headers.retain(|(other, _)| *other != name);
        headers
    };
    let mut another = without("ce_source");
    another.push(("ce_source", "a shop".to_owned()));
    let first = blog.end_of(P).await;
    blog.send_raw(P, &[], Some("garbage")).await;
    blog.send_raw(P, &another, Some("{}")).await;
    blog.send_raw(P, &without("previous"), Some("{}")).await;
    blog.send_raw(P, &ours.headers(), None).await;
    blog.send_to(Partition(0), &ours).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;

    let copies = copies(&blog, 5).await;
    let offset = |number: i64| (first + number).to_string();
    let of =
        |partition: &str, offset: &str| copies[&(partition.to_owned(), offset.to_owned())].clone();
    let expected = [
        (0, "the message has no headers", Some("garbage")),
        (1, "its source is not `inkstream`", Some("{}")),
        (2, "the header `previous` is missing", Some("{}")),
        (3, "the message has no text as its value", None),
    ];
    for (number, reason, value) in expected {
        let copy = of("1", &offset(number));
        assert_eq!(copy.headers["reason"], reason);
        assert_eq!(copy.headers["source-topic"], blog.topic);
        assert_eq!((copy.key.as_str(), copy.value.as_deref()), ("a key", value));
    }
    assert_eq!(of("1", &offset(1)).headers["ce_source"], "a shop");
    assert_eq!(of("1", &offset(3)).headers["ce_subject"], id.to_string());
    let strayed = copies.values().find(|copy| copy.headers["source-partition"] == "0").unwrap();
    assert_eq!(strayed.headers["reason"], "it belongs to partition 1");
    let counted = projector.metrics().await;
    for reason in ["headers", "source", "value", "partition"] {
        let name = format!("projector_undecodable_messages_total{{reason=\"{reason}\"}}");
        assert!(counted.contains(&name), "{name} is missing");
    }
    projector.stop().await;
}

#[tokio::test]
async fn nothing_is_committed_past_a_message_before_it_is_copied() {
    let (mut blog, projector) = blog_in_use().await;
    projector.stop().await;
    // No topic can have this name, until the operator sets another.
    let copied_to = std::mem::replace(&mut blog.undecodable, "no topic".to_owned());
    let projector = blog.project().await;
    let stray = blog.end_of(P).await;
    blog.send_raw(P, &[], Some("garbage")).await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(2).await;
    blog.relay_after(head).await;
    // The views do not wait for it.
    blog.views_agree_with_the_log().await;
    eventually("it says so", async || {
        projector.unready("undecodable").await.is_some_and(|why| why.contains("no topic"))
    })
    .await;
    eventually("it is ready all the same", async || projector.health().await.0 == 200).await;
    projector.stop().await;
    assert!(blog.committed(P).await <= stray, "{} is past {stray}", blog.committed(P).await);

    blog.undecodable = copied_to;
    let projector = blog.project().await;
    let copies = copies(&blog, 1).await;
    assert!(copies.contains_key(&("1".to_owned(), stray.to_string())), "{copies:?}");
    let past = async || blog.committed(P).await > stray;
    eventually("it is committed then", past).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_message_too_long_for_the_other_topic_is_copied_without_its_value() {
    let (mut blog, projector) = blog_in_use().await;
    projector.stop().await;
    blog.undecodable = unique_name("short");
    create_topic(&shared().kafka, &blog.undecodable, 1).await;
    blog.takes_no_longer_messages_than(2000).await;
    let projector = blog.project().await;
    blog.send_raw(P, &[], Some(&"x".repeat(5000))).await;
    let copies = copies(&blog, 1).await;
    let copy = copies.values().next().unwrap();
    assert_eq!(copy.headers["left-out-bytes"], "5000");
    assert_eq!(copy.value, None);
    projector.stop().await;
}

#[derive(Debug, Clone)]
struct Copy {
    key: String,
    value: Option<String>,
    headers: BTreeMap<String, String>,
}

/// Reads so many copies, by the partition and the offset of what they were made of.
async fn copies(blog: &Blog, count: usize) -> BTreeMap<(String, String), Copy> {
    let consumer: StreamConsumer = client(&unique_name("reader"))
        .set("auto.offset.reset", "earliest")
        .set("topic.metadata.refresh.interval.ms", "200")
        .create()
        .unwrap();
    consumer.subscribe(&[&blog.undecodable]).unwrap();
    let mut copies = BTreeMap::new();
    let read = tokio::time::timeout(Duration::from_secs(60), async {
        while copies.len() < count {
            // The topic may not be there yet.
            let Ok(message) = consumer.recv().await else { continue };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let headers: BTreeMap<String, String> = message
                .headers()
                .unwrap()
                .iter()
                .map(|header| (header.key.to_owned(), text(header.value.unwrap())))
                .collect();
            let from = (headers["source-partition"].clone(), headers["source-offset"].clone());
            let key = message.key().map(text).unwrap();
            let copy = Copy { key, value: message.payload().map(text), headers };
            copies.insert(from, copy);
        }
    });
    read.await.unwrap_or_else(|_| panic!("there are no more than these copies: {copies:?}"));
    copies
}

fn client(group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", shared().kafka).set("group.id", group);
    config
}

impl Blog {
    /// The offset that the next message of a partition gets.
    async fn end_of(&self, partition: Partition) -> i64 {
        let (topic, partition) = (self.topic.clone(), i32::from(partition.0));
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client("nobody").create().unwrap();
            consumer.fetch_watermarks(&topic, partition, Duration::from_secs(10)).unwrap().1
        })
        .await
        .unwrap()
    }

    /// Up to where the projectors have told Kafka that they have come; 0 if they have not.
    async fn committed(&self, partition: Partition) -> i64 {
        let (topic, partition) = (self.topic.clone(), i32::from(partition.0));
        let group = format!("{}-v{}", self.group(), read_model::VIEW_VERSION);
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client(&group).create().unwrap();
            let mut asked = TopicPartitionList::new();
            asked.add_partition(&topic, partition);
            let told = consumer.committed_offsets(asked, Duration::from_secs(10)).unwrap();
            told.elements()[0].offset().to_raw().unwrap_or(0).max(0)
        })
        .await
        .unwrap()
    }

    async fn takes_no_longer_messages_than(&self, bytes: u32) {
        use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
        let admin: AdminClient<_> = client("nobody").create().unwrap();
        let bytes = bytes.to_string();
        let topic = ResourceSpecifier::Topic(&self.undecodable);
        let config = AlterConfig::new(topic).set("max.message.bytes", &bytes);
        let altered = admin.alter_configs(&[config], &AdminOptions::new()).await.unwrap();
        altered.into_iter().for_each(|outcome| {
            outcome.unwrap();
        });
    }
}

async fn blog_in_use() -> (Blog, Projector) {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    blog.has_begun().await;
    blog.publish_in_all(1).await;
    blog.relay_after(Position::ZERO).await;
    blog.views_agree_with_the_log().await;
    (blog, projector)
}

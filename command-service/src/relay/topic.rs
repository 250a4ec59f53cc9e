//! The topic: created where it is missing, and compared with what the relay needs.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use service_runtime::progress;

/// Longest message, 4 MiB. A body's 262,144 bytes may come to six times as many in JSON, where control
/// characters are written out.
pub(super) const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Timeout of one request to describe or create a topic.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of polls until a new topic is known everywhere.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

const RETENTION: &str = "retention.ms";
const MAX_BYTES: &str = "max.message.bytes";
const MIN_IN_SYNC: &str = "min.insync.replicas";

/// Where events go.
#[derive(Debug, Clone)]
pub struct Topic {
    pub brokers: String,
    pub name: String,
    /// As many as the store has.
    pub partitions: u16,
    /// Used when the topic is created.
    pub replication: i32,
    /// Number of copies, the leader's included, that a message needs before Kafka acknowledges it.
    pub min_in_sync: i32,
}

/// Number of copies that must have a message, where no setting says it: half of them, rounded up. One broker of
/// three may be away, and what was acknowledged survives the loss of another.
pub fn default_min_in_sync(replication: i32) -> i32 {
    (replication + 1) / 2
}

/// State of a topic that events can be published to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TopicState {
    /// Longest batch of messages that the topic takes, in bytes. `None` if Kafka does not tell.
    pub max_message_bytes: Option<usize>,
    /// Differences from what the relay needs, for an operator. They do not stop it.
    pub deviations: Vec<String>,
    /// The topic was missing and has just been created.
    pub created: bool,
}

/// The topic has no place for some partitions of the store. An operator has to create it again.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "the topic `{topic}` has {found} partitions and the store {needed}; nothing is published until the topic is \
     created again with {needed}"
)]
pub struct TooFewPartitions {
    topic: String,
    found: usize,
    needed: u16,
}

impl Topic {
    /// Creates the topic if it is missing, and compares it with what the relay needs.
    pub(super) async fn ensure(&self) -> anyhow::Result<TopicState> {
        let mut created = false;
        let found = match self.count_partitions().await? {
            0 => {
                self.create().await?;
                created = true;
                self.wait_until_known().await?
            }
            found => found,
        };
        if found < usize::from(self.partitions) {
            let (topic, needed) = (self.name.clone(), self.partitions);
            return Err(TooFewPartitions { topic, found, needed }.into());
        }
        let mut state = self.describe().await;
        state.created = created;
        if found > usize::from(self.partitions) {
            // Each message names its partition, so none of them changes its place.
            state.deviations.push(format!(
                "the topic `{}` has {found} partitions and the store {}; the others stay empty",
                self.name, self.partitions
            ));
        }
        Ok(state)
    }

    /// Settings of a client of this topic's brokers. None of them may create the topic by asking for it: the broker
    /// would give it another number of partitions.
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "inkstream-relay")
            .set("allow.auto.create.topics", "false");
        config
    }

    /// Returns the number of partitions; 0 if there is no such topic.
    async fn count_partitions(&self) -> anyhow::Result<usize> {
        progress::tick();
        let (client, name) = (self.client(), self.name.clone());
        // Asking for metadata blocks its thread, and so does dropping a client.
        let asked = tokio::task::spawn_blocking(move || {
            let admin: AdminClient<DefaultClientContext> = client.create()?;
            let metadata = admin.inner().fetch_metadata(Some(&name), ADMIN_TIMEOUT)?;
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            let topic = topic.context("Kafka does not describe the topic")?;
            match topic.error().map(RDKafkaErrorCode::from) {
                None => Ok(topic.partitions().len()),
                Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(0),
                Some(code) => Err(anyhow!("{code}")),
            }
        });
        asked.await?.context("asking for the topic")
    }

    async fn create(&self) -> anyhow::Result<()> {
        progress::tick();
        let (max_bytes, min_in_sync) =
            (MAX_MESSAGE_BYTES.to_string(), self.min_in_sync.to_string());
        let replication = TopicReplication::Fixed(self.replication);
        let new = NewTopic::new(&self.name, self.partitions.into(), replication)
            .set(RETENTION, "604800000")
            .set(MAX_BYTES, &max_bytes)
            .set(MIN_IN_SYNC, &min_in_sync);
        let admin = Admin::new(self)?;
        let created = admin.client().create_topics([&new], &options()).await;
        for result in created.context("creating the topic")? {
            match result {
                Ok(_) => tracing::info!(topic = self.name, "topic created"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => bail!("the topic cannot be created: {code}"),
            }
        }
        Ok(())
    }

    async fn wait_until_known(&self) -> anyhow::Result<usize> {
        let known = async {
            loop {
                match self.count_partitions().await {
                    Ok(found) if found > 0 => return found,
                    _ => tokio::time::sleep(POLL_INTERVAL).await,
                }
            }
        };
        let known = tokio::time::timeout(ADMIN_TIMEOUT, known).await;
        known.context("the new topic is not known yet")
    }

    /// Compares the topic's settings with those that it is created with.
    async fn describe(&self) -> TopicState {
        progress::tick();
        let described = async {
            let admin = Admin::new(self)?;
            let topic = [ResourceSpecifier::Topic(&self.name)];
            let described = admin.client().describe_configs(&topic, &options()).await?;
            let settings = described.into_iter().next().context("no answer")?;
            anyhow::Ok(settings.map_err(|code| anyhow!("{code}"))?)
        };
        let name = &self.name;
        let settings = match described.await {
            Ok(settings) => settings,
            Err(error) => {
                let deviation =
                    format!("the settings of the topic `{name}` are unknown: {error:#}");
                return TopicState { deviations: vec![deviation], ..TopicState::default() };
            }
        };
        let number = |setting| settings.get(setting)?.value.as_deref()?.parse::<usize>().ok();
        let max_message_bytes = number(MAX_BYTES);
        let needed = [
            (MAX_BYTES, max_message_bytes, MAX_MESSAGE_BYTES),
            (MIN_IN_SYNC, number(MIN_IN_SYNC), usize::try_from(self.min_in_sync).unwrap_or(1)),
        ];
        let lower = needed.iter().filter_map(|(setting, found, needed)| {
            let found = found.filter(|found| found < needed)?;
            Some(format!("the topic `{name}` has {setting}={found}, below {needed}"))
        });
        TopicState { max_message_bytes, deviations: lower.collect(), created: false }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT)).request_timeout(Some(ADMIN_TIMEOUT))
}

/// An administrative client, dropped where that may block.
struct Admin(Option<AdminClient<DefaultClientContext>>);

impl Admin {
    fn new(topic: &Topic) -> anyhow::Result<Self> {
        Ok(Self(Some(topic.client().create().context("creating a client")?)))
    }

    fn client(&self) -> &AdminClient<DefaultClientContext> {
        self.0.as_ref().expect("only `drop` takes it")
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        let client = self.0.take();
        tokio::task::spawn_blocking(move || drop(client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_needs_half_of_the_copies_rounded_up() {
        let by_replication: Vec<_> = (1..=5).map(default_min_in_sync).collect();
        assert_eq!(by_replication, [1, 1, 2, 2, 3]);
    }
}

//! Hearing what the guard announces: which posts have changed, and which slugs they took.

use std::io;
use std::time::Duration;

use domain::{PostId, Slug};
use futures::StreamExt as _;
use redis::{RedisError, Value};
use tokio::time::{interval, timeout};

use crate::views::Views;

/// How often Redis is asked whether it is still there, and how long it has to answer: a connection that
/// stalls tells nothing, and so looks like one on which nothing happens.
const ASK_EVERY: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_secs(1);

/// Announcements of one store's views.
#[derive(Debug, Clone)]
pub struct Announcements {
    views: Views,
    channel: String,
}

/// What is heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// From here on every change is heard. Those before it may have been missed.
    Beginning,
    /// This post is not what it was, and these slugs name it from now on.
    Change(PostId, Vec<Slug>),
}

impl Announcements {
    pub(crate) fn new(views: Views, channel: String) -> Self {
        Self { views, channel }
    }

    /// Connects, and tells what is heard until the connection breaks; the reason comes back. Whoever wants
    /// to hear more calls again. Calls `alive` once a second, whenever Redis has answered.
    pub async fn hear(&self, mut tell: impl FnMut(Heard), alive: impl Fn()) -> RedisError {
        let heard = async {
            let pubsub = in_time(self.views.listener()?.get_async_pubsub()).await?;
            let (mut sink, mut messages) = pubsub.split();
            in_time(sink.subscribe(&self.channel)).await?;
            tell(Heard::Beginning);

            let listen = async {
                while let Some(message) = messages.next().await {
                    let text: String = message.get_payload()?;
                    text.lines().filter_map(change).for_each(&mut tell);
                }
                Err(RedisError::from(io::Error::from(io::ErrorKind::ConnectionReset)))
            };
            let ask = async {
                let mut every = interval(ASK_EVERY);
                loop {
                    every.tick().await;
                    in_time(sink.ping::<Value>()).await?;
                    alive();
                }
            };
            tokio::select! {
                ended = listen => ended,
                ended = ask => ended,
            }
        };
        match heard.await {
            Ok(never) => never,
            Err(why) => why,
        }
    }
}

/// A line of an announcement; `None` for what another version of this program may say some day.
fn change(line: &str) -> Option<Heard> {
    let mut words = line.split(' ');
    let id = words.next()?.parse().ok()?;
    Some(Heard::Change(id, words.map(|slug| Slug::recorded(slug.to_owned())).collect()))
}

async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let late = |_elapsed| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
    timeout(LIMIT, answer).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_post_and_its_new_slugs() {
        let id = PostId(uuid::Uuid::from_u128(7));
        assert_eq!(change(&id.to_string()), Some(Heard::Change(id, vec![])));
        let slugs = vec!["a".parse().unwrap(), "b-2".parse().unwrap()];
        assert_eq!(change(&format!("{id} a b-2")), Some(Heard::Change(id, slugs)));
        assert_eq!(change("everything"), None);
    }
}

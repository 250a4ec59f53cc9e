//! Hearing what the guard announces: which posts have changed, and which slugs they took.

use std::io;
use std::time::Duration;

use domain::{Position, PostId, Slug};
use futures::StreamExt as _;
use redis::{RedisError, Value};
use tokio::time::{interval, timeout};

use crate::guard::StorePosition;
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
    Change(Change),
}

/// A post is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub post_id: PostId,
    pub visibility: Visibility,
    /// Slugs that name it from now on.
    pub slugs: Vec<Slug>,
}

/// Visibility of a post to readers, and the position as of which it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// The change does not say.
    Unknown,
    /// Never published, so nothing of it was ever shown.
    Unpublished(StorePosition),
    Published(StorePosition),
    /// Unpublished or deleted after it was published.
    Withdrawn(StorePosition),
}

const UNKNOWN: &str = "unknown";
const UNPUBLISHED: &str = "unpublished";
const PUBLISHED: &str = "published";
const WITHDRAWN: &str = "withdrawn";

/// Line of an announcement, with the slugs that the post took.
pub(crate) fn line<'a>(
    id: PostId,
    visibility: Visibility,
    slugs: impl Iterator<Item = &'a Slug>,
) -> String {
    let of = |word, StorePosition { incarnation, position }: StorePosition| {
        format!("{id} {word} {incarnation} {position}")
    };
    let line = match visibility {
        Visibility::Unknown => format!("{id} {UNKNOWN}"),
        Visibility::Unpublished(at) => of(UNPUBLISHED, at),
        Visibility::Published(at) => of(PUBLISHED, at),
        Visibility::Withdrawn(at) => of(WITHDRAWN, at),
    };
    slugs.fold(line, |line, slug| format!("{line} {slug}")) + "\n"
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

/// Reads a line of an announcement; `None` for one that another version of this program writes.
fn change(line: &str) -> Option<Heard> {
    let mut words = line.split(' ');
    let post_id = words.next()?.parse().ok()?;
    let visibility = words.next()?;
    let mut at = || {
        let incarnation = words.next()?.parse().ok()?;
        let position = Position(words.next()?.parse().ok()?);
        Some(StorePosition { incarnation, position })
    };
    let visibility = match visibility {
        UNKNOWN => Visibility::Unknown,
        UNPUBLISHED => Visibility::Unpublished(at()?),
        PUBLISHED => Visibility::Published(at()?),
        WITHDRAWN => Visibility::Withdrawn(at()?),
        _ => return None,
    };
    let slugs = words.map(|slug| Slug::recorded(slug.to_owned())).collect();
    Some(Heard::Change(Change { post_id, visibility, slugs }))
}

async fn in_time<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    let late = |_elapsed| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
    timeout(LIMIT, answer).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_as_it_was_written() {
        let id = PostId(uuid::Uuid::from_u128(7));
        let at = StorePosition { incarnation: 2, position: Position(30) };
        let slugs: Vec<Slug> = vec!["a".parse().unwrap(), "b-2".parse().unwrap()];
        for visibility in [
            Visibility::Unknown,
            Visibility::Unpublished(at),
            Visibility::Published(at),
            Visibility::Withdrawn(at),
        ] {
            let line = line(id, visibility, slugs.iter());
            let read = Change { post_id: id, visibility, slugs: slugs.clone() };
            assert_eq!(change(line.trim_end()), Some(Heard::Change(read)), "{line}");
        }
        for bad in ["everything".to_owned(), id.to_string(), format!("{id} published 1")] {
            assert_eq!(change(&bad), None, "{bad}");
        }
    }
}

//! Commands that come by a schedule, whether or not those before are answered; some of them are watched
//! until a reader can see what they did.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::http::{Answer, Connection};
use crate::requests::{Request, TEXT_BYTES, address_of, text};
use crate::system::Whole;
use crate::watching::Watchers;

/// How many commands may be unanswered before the schedule is held up.
const WRITERS: usize = 128;
/// How many commands of a second are watched.
const WATCHED_PER_SECOND: u64 = 200;

/// When commands are due, and what they are made of.
#[derive(Debug)]
pub(crate) struct Schedule {
    began: Instant,
    end: Instant,
    per_second: u64,
    next: AtomicU64,
    token: String,
    publish: Request,
    /// What is revised, each in its turn.
    posts: Vec<Post>,
    watchers: Watchers,
}

/// A post as the answer to its command tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    id: String,
    slug: String,
    version: u64,
}

/// What became of one command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    /// When it was due, since the beginning.
    pub(crate) due: Duration,
    /// How long after that it was answered.
    pub(crate) took: Duration,
    pub(crate) watched: Option<Watched>,
}

/// After how long a reader saw what a command did.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watched {
    New(Duration),
    Revised(Duration),
}

/// Sends so many commands a second for so long.
pub(crate) async fn run(
    whole: &Whole,
    per_second: u64,
    duration: Duration,
    posts: Vec<Post>,
) -> anyhow::Result<Vec<Done>> {
    let to = address_of(&whole.command.url())?;
    let token = whole.system.token()?;
    let publish = Request::publish(to, &token, &text(TEXT_BYTES));
    let watchers = Watchers::new(address_of(&whole.query.url())?);
    let mut connections = Vec::with_capacity(WRITERS);
    for _ in 0..WRITERS {
        connections.push(Connection::open(to).await?);
    }
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let end = began + duration;
    let schedule = Schedule { began, end, per_second, next, token, publish, posts, watchers };
    let schedule = Arc::new(schedule);
    let mut writers = JoinSet::new();
    for connection in connections {
        writers.spawn(Arc::clone(&schedule).write(connection));
    }
    let mut done = Vec::new();
    while let Some(writer) = writers.join_next().await {
        done.extend(writer??);
    }
    Ok(done)
}

impl Schedule {
    /// Takes the next command, waits until it is due and sends it, until the end.
    async fn write(self: Arc<Self>, mut connection: Connection) -> anyhow::Result<Vec<Done>> {
        let (mut done, mut watching) = (Vec::new(), JoinSet::new());
        let mut publish = self.publish.clone();
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs(1) * u32::try_from(number)?
                / u32::try_from(self.per_second.max(1))?;
            if self.began + due >= self.end {
                break;
            }
            tokio::time::sleep_until((self.began + due).into()).await;
            let Some(nth) = watched(number, self.per_second) else {
                post_in(connection.ask(publish.next()).await?, 201)?;
                done.push(Done { due, took: self.began.elapsed() - due, watched: None });
                continue;
            };
            let (post, watched): (_, fn(Duration) -> Watched) = if nth % 2 == 0 {
                (self.revise(nth / 2, &mut connection).await?, Watched::Revised)
            } else {
                (post_in(connection.ask(publish.next()).await?, 201)?, Watched::New)
            };
            let (answered, schedule) = (Instant::now(), Arc::clone(&self));
            let took = answered - self.began - due;
            watching.spawn(async move {
                let watchers = &schedule.watchers;
                let after = watchers.until_visible(&post.slug, post.version, answered).await?;
                anyhow::Ok(Done { due, took, watched: Some(watched(after)) })
            });
        }
        while let Some(watched) = watching.join_next().await {
            done.push(watched??);
        }
        Ok(done)
    }

    async fn revise(&self, nth: u64, connection: &mut Connection) -> anyhow::Result<Post> {
        let post = self.posts.get(usize::try_from(nth)? % self.posts.len().max(1));
        let id = &post.context("there is nothing to revise")?.id;
        let to = connection.peer()?;
        let mut revise = Request::revise(to, &self.token, id, &text(TEXT_BYTES));
        post_in(connection.ask(revise.next()).await?, 200)
    }
}

/// The how-manieth of the watched commands the one with this number is, if it is watched: as many of each
/// second as are to be.
fn watched(number: u64, per_second: u64) -> Option<u64> {
    let before = |number: u64| number * WATCHED_PER_SECOND / per_second.max(WATCHED_PER_SECOND);
    (before(number + 1) > before(number)).then(|| before(number))
}

/// Publishes so many posts, one after the other.
pub(crate) async fn publish(whole: &Whole, count: usize) -> anyhow::Result<Vec<Post>> {
    let to = address_of(&whole.command.url())?;
    let mut request = Request::publish(to, &whole.system.token()?, &text(TEXT_BYTES));
    let mut connection = Connection::open(to).await?;
    let mut posts = Vec::with_capacity(count);
    for _ in 0..count {
        posts.push(post_in(connection.ask(request.next()).await?, 201)?);
    }
    Ok(posts)
}

fn post_in(answer: Answer<'_>, status: u16) -> anyhow::Result<Post> {
    ensure!(answer.status == status, answer.unexpected());
    let body: Value = serde_json::from_slice(answer.body)?;
    let text = |name: &str| Some(body[name].as_str()?.to_owned());
    let post =
        || Some(Post { id: text("id")?, slug: text("slug")?, version: body["version"].as_u64()? });
    post().context("an answer without id, slug and version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_commands_of_a_second_are_watched_as_there_may_be() {
        for per_second in [100, 200, 201, 999, 4000] {
            let numbers = 10 * per_second..11 * per_second;
            let watched: Vec<u64> = numbers.filter_map(|n| watched(n, per_second)).collect();
            assert_eq!(watched.len() as u64, per_second.min(WATCHED_PER_SECOND), "{per_second}");
            assert!(watched.windows(2).all(|pair| pair[1] == pair[0] + 1), "{per_second}");
        }
    }
}

//! A steady load of readers and writers, whatever happens to the servers, and a judgement of every answer.
//!
//! Requests go out by the clock, whether or not those before them were answered. Writers revise posts: each
//! revision has a title of its own, so an answer shows which one it was made from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::author::{Author, Post};
use crate::reader::{Answer, Reader};

/// How many of each a second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Reads of a page by somebody who shows nothing.
    pub reads: u32,
    /// Revisions, each followed by a read of its author with the token they were given.
    pub writes: u32,
}

/// A load under way.
#[derive(Debug)]
pub struct Steady {
    stop: CancellationToken,
    ground: Arc<Ground>,
    tasks: JoinSet<()>,
}

/// What all its tasks share.
#[derive(Debug)]
struct Ground {
    author: Author,
    reader: Reader,
    /// Nobody revises a post while an answer to another revision of it is awaited.
    posts: Vec<AsyncMutex<Post>>,
    editions: Mutex<Vec<Edition>>,
    reads: Mutex<Vec<Read>>,
    refused: Mutex<usize>,
}

/// A revision as its author knows it.
#[derive(Debug, Clone)]
struct Edition {
    post: String,
    title: String,
    /// Version and position; `None` if there was no answer, so that nobody knows whether it was recorded.
    recorded: Option<(u64, u64)>,
}

/// One read.
#[derive(Debug)]
struct Read {
    took: Duration,
    post: String,
    /// The version that had to be in it unless it said that it is stale.
    promised: Option<u64>,
    answer: Result<Answer, String>,
}

/// What became of it all.
#[derive(Debug, Default)]
pub struct Judged {
    pub reads: usize,
    pub reads_with_token: usize,
    pub writes: usize,
    /// Answers that were not true, with the reason.
    pub wrong: Vec<String>,
    /// Reads without a token that were not answered with a page.
    pub errors: usize,
    /// Reads with a token that were not.
    pub errors_with_token: usize,
    /// Answers to a token that said they lack what was asked for.
    pub stale_with_token: usize,
    /// Revisions that were not acknowledged.
    pub refused: usize,
    pub longest: Duration,
}

impl Steady {
    /// Begins with these posts of an author.
    pub fn begin(author: &Author, reader: &Reader, posts: &[Post], rates: Rates) -> Self {
        let edition = |post: &Post| Edition {
            post: post.id.clone(),
            title: post.title.clone(),
            recorded: Some((post.version, post.position)),
        };
        let ground = Arc::new(Ground {
            author: author.clone(),
            reader: reader.clone(),
            editions: Mutex::new(posts.iter().map(edition).collect()),
            posts: posts.iter().cloned().map(AsyncMutex::new).collect(),
            reads: Mutex::default(),
            refused: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (reading, writing) = (ground.clone(), ground.clone());
        tasks.spawn(by_the_clock(stop.clone(), rates.reads, move |number| {
            let ground = reading.clone();
            async move { ground.read(number).await }
        }));
        tasks.spawn(by_the_clock(stop.clone(), rates.writes, move |number| {
            let ground = writing.clone();
            async move { ground.write(number).await }
        }));
        Self { stop, ground, tasks }
    }

    /// Ends it, waits for the answers that are still due, and judges all.
    ///
    /// # Panics
    ///
    /// If a task panicked.
    pub async fn end(self) -> Judged {
        self.stop.cancel();
        self.tasks.join_all().await;
        self.ground.judge()
    }
}

/// Does something so many times a second until it is told to stop, then waits for all of it.
async fn by_the_clock<F, T>(stop: CancellationToken, a_second: u32, what: F)
where
    F: Fn(usize) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let mut clock = tokio::time::interval(Duration::from_secs(1) / a_second);
    let mut under_way = JoinSet::new();
    let mut number = 0;
    while stop.run_until_cancelled(clock.tick()).await.is_some() {
        under_way.spawn(what(number));
        number += 1;
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
}

impl Ground {
    /// By turns by slug and by id.
    async fn read(&self, number: usize) {
        let (id, slug) = {
            let editions = lock(&self.editions);
            let post = &editions[number % self.posts.len()].post;
            (post.clone(), number.is_multiple_of(2))
        };
        let path = if slug { self.slugs()[&id].clone() } else { id.clone() };
        let reader = self.reader.clone();
        self.take_note(id, None, reader.try_get(&format!("/posts/{path}"))).await;
    }

    /// Revises a post and reads it with the token that came with the answer.
    async fn write(&self, number: usize) {
        let mut post = self.posts[number % self.posts.len()].lock().await;
        let title = format!("{}, edition {number}", post.slug());
        let answer = self.author.try_to_revise(&post, json!({ "title": title })).await;
        let recorded = answer.as_ref().map(|(post, _)| (post.version, post.position));
        lock(&self.editions).push(Edition { post: post.id.clone(), title, recorded });
        let Some((revised, token)) = answer else {
            *lock(&self.refused) += 1;
            return;
        };
        let (id, version) = (revised.id.clone(), revised.version);
        *post = revised;
        drop(post);
        let reader = self.reader.clone().showing(&token);
        self.take_note(id.clone(), Some(version), reader.try_get(&format!("/posts/{id}"))).await;
    }

    async fn take_note(
        &self,
        post: String,
        promised: Option<u64>,
        reading: impl Future<Output = reqwest::Result<Answer>>,
    ) {
        let began = Instant::now();
        let answer = reading.await.map_err(|error| format!("{error:?}"));
        let read = Read { took: began.elapsed(), post, promised, answer };
        lock(&self.reads).push(read);
    }

    /// The slugs do not change, since a title that changes later leaves them.
    fn slugs(&self) -> HashMap<String, String> {
        let editions = lock(&self.editions);
        let first = editions.iter().take(self.posts.len());
        first.map(|edition| (edition.post.clone(), slug_of(&edition.title))).collect()
    }

    fn judge(&self) -> Judged {
        let (editions, reads) = (lock(&self.editions), lock(&self.reads));
        let mut judged = Judged {
            writes: editions.len() - self.posts.len(),
            refused: *lock(&self.refused),
            ..Judged::default()
        };
        for read in reads.iter() {
            judged.longest = judged.longest.max(read.took);
            let with_token = read.promised.is_some();
            *(if with_token { &mut judged.reads_with_token } else { &mut judged.reads }) += 1;
            match &read.answer {
                Ok(answer) if answer.status == 200 => {
                    let of_post = editions.iter().filter(|edition| edition.post == read.post);
                    judged.wrong.extend(untruth(read, answer, &Vec::from_iter(of_post)));
                    judged.stale_with_token += usize::from(with_token && answer.is_stale());
                }
                // An honest one; whatever else there is, is not.
                Ok(answer) if answer.status != 503 => judged.wrong.push(format!("{answer:?}")),
                Ok(_) | Err(_) if with_token => judged.errors_with_token += 1,
                Ok(_) | Err(_) => judged.errors += 1,
            }
        }
        judged
    }
}

/// What is not true about a page that was shown, if anything is.
fn untruth(read: &Read, answer: &Answer, editions: &[&Edition]) -> Option<String> {
    let (version, title) = (answer.body["version"].as_u64()?, answer.body["title"].as_str()?);
    let shown = |why: &str| Some(format!("{why}: {title:?}, version {version}, {answer:?}"));
    let Some(edition) = editions.iter().find(|edition| edition.title == title) else {
        return shown("nobody wrote this");
    };
    if edition.recorded.is_some_and(|(recorded, _)| recorded != version) {
        return shown("this title has another version");
    }
    let includes = |position: u64| {
        let newest = editions.iter().filter_map(|edition| edition.recorded);
        newest.filter(|(_, at)| *at <= position).all(|(recorded, _)| recorded <= version)
    };
    let position = answer.header("freshness").strip_prefix("position=")?.split(',').next()?;
    if !answer.is_stale() && !includes(position.parse().ok()?) {
        return shown("it is older than it says");
    }
    if !answer.is_stale() && read.promised.is_some_and(|promised| version < promised) {
        return shown("its reader has written more");
    }
    None
}

fn slug_of(title: &str) -> String {
    title.to_lowercase().replace(' ', "-")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

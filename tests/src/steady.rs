//! A steady load of readers and writers, whatever happens to the servers.
//!
//! Requests go out by the clock, whether or not those before them were answered. Writers revise posts: each
//! revision has a title of its own, so an answer shows which one it was made from.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::author::{Author, Post};
use crate::judged::{Edition, Judged, Kind, Read};
use crate::reader::{Answer, Reader};

/// How many of each a second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Reads of a page by somebody who shows nothing.
    pub reads: u32,
    /// The same by a browser.
    pub html: u32,
    /// Reads of pages that nobody has read before, as long as there are any.
    pub cold: u32,
    /// Reads of the latest posts.
    pub lists: u32,
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
    /// The id of each, and the slug, which stays when its title changes.
    slugs: Vec<(String, String)>,
    cold: Vec<Post>,
    /// What a list of the latest posts must show.
    latest: Vec<String>,
    editions: Mutex<Vec<Edition>>,
    reads: Mutex<Vec<Read>>,
    writes: Mutex<usize>,
    refused: Mutex<usize>,
}

impl Steady {
    /// Begins with these posts of an author, published one after the other, last of all; and with some that nobody
    /// has read and nobody will revise.
    pub fn begin(
        author: &Author,
        reader: &Reader,
        posts: &[Post],
        cold: Vec<Post>,
        rates: Rates,
    ) -> Self {
        let edition = |post: &Post| Edition {
            post: post.id.clone(),
            title: post.title.clone(),
            recorded: Some((post.version, post.position)),
        };
        let ground = Arc::new(Ground {
            author: author.clone(),
            reader: reader.clone(),
            editions: Mutex::new(posts.iter().chain(&cold).map(edition).collect()),
            slugs: posts.iter().map(|post| (post.id.clone(), post.slug().to_owned())).collect(),
            posts: posts.iter().cloned().map(AsyncMutex::new).collect(),
            latest: posts.iter().rev().map(|post| post.id.clone()).collect(),
            cold,
            reads: Mutex::default(),
            writes: Mutex::default(),
            refused: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (kind, a_second) in [
            (Kind::Page, rates.reads),
            (Kind::WithToken, rates.writes),
            (Kind::Html, rates.html),
            (Kind::Cold, rates.cold),
            (Kind::List, rates.lists),
        ] {
            let ground = ground.clone();
            tasks.spawn(by_the_clock(stop.clone(), a_second, move |number| {
                let ground = ground.clone();
                async move { ground.act(kind, number).await }
            }));
        }
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
    async fn act(&self, kind: Kind, number: usize) {
        let nth = number % self.latest.len();
        // Pages by turns by slug and by id.
        let (id, slug) = &self.slugs[nth];
        let address = if number.is_multiple_of(2) { slug } else { id };
        let page = format!("/posts/{address}");
        match kind {
            Kind::WithToken => self.write(nth, number).await,
            Kind::Page => self.note(kind, vec![id.clone()], None, self.reader.try_get(&page)).await,
            Kind::Html => {
                self.note(kind, vec![id.clone()], None, self.reader.try_browse(&page)).await;
            }
            Kind::Cold => {
                let Some(Post { id, .. }) = self.cold.get(number) else { return };
                let page = format!("/posts/{id}");
                self.note(kind, vec![id.clone()], None, self.reader.try_get(&page)).await;
            }
            Kind::List => {
                let list = format!("/posts?limit={}", self.latest.len());
                self.note(kind, self.latest.clone(), None, self.reader.try_get(&list)).await;
            }
        }
    }

    /// Revises a post and reads it with the token that came with the answer.
    async fn write(&self, nth: usize, number: usize) {
        let mut post = self.posts[nth].lock().await;
        let title = format!("{}, edition {number}", post.slug());
        let answer = self.author.try_to_revise(&post, json!({ "title": title })).await;
        let recorded = answer.as_ref().map(|(post, _)| (post.version, post.position));
        lock(&self.editions).push(Edition { post: post.id.clone(), title, recorded });
        *lock(&self.writes) += 1;
        let Some((revised, token)) = answer else {
            *lock(&self.refused) += 1;
            return;
        };
        let (id, version) = (revised.id.clone(), revised.version);
        *post = revised;
        drop(post);
        let (page, reader) = (format!("/posts/{id}"), self.reader.clone().showing(&token));
        self.note(Kind::WithToken, vec![id], Some(version), reader.try_get(&page)).await;
    }

    async fn note(
        &self,
        kind: Kind,
        posts: Vec<String>,
        promised: Option<u64>,
        reading: impl Future<Output = reqwest::Result<Answer>>,
    ) {
        let began = Instant::now();
        let answer = reading.await.map_err(|error| format!("{error:?}"));
        let read = Read { kind, took: began.elapsed(), posts, promised, answer };
        lock(&self.reads).push(read);
    }

    fn judge(&self) -> Judged {
        let editions = lock(&self.editions);
        let (writes, refused) = (*lock(&self.writes), *lock(&self.refused));
        let mut judged = Judged { writes, refused, ..Judged::default() };
        for read in lock(&self.reads).iter() {
            judged.add(read, &editions);
        }
        judged
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

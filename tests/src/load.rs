//! Many authors publishing at once, while a test breaks something.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::author::{Attempt, Author, Post};

/// How long authors wait before they knock again, and how long all of it may take.
const PAUSE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(120);

/// How long they rest after each post that is more than was asked for.
const REST: Duration = Duration::from_millis(100);

/// A load under way.
#[derive(Debug)]
pub struct Load {
    published: Published,
    count: watch::Receiver<usize>,
    ending: Arc<AtomicBool>,
    authors: JoinSet<Told>,
}

/// What has been acknowledged so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Published(Arc<Mutex<Vec<Post>>>);

/// What became of all posts of a load.
#[derive(Debug)]
pub struct Outcome {
    pub acknowledged: Vec<Post>,
    /// The titles of those of which the authors do not know.
    pub unknown: Vec<String>,
    /// How often a service was not there to take a post.
    pub not_sent: usize,
}

/// What one author was not told.
#[derive(Debug, Default)]
struct Told {
    unknown: Vec<String>,
    not_sent: usize,
}

impl Published {
    pub fn posts(&self) -> Vec<Post> {
        self.lock().clone()
    }

    pub fn push(&self, post: Post) {
        self.lock().push(post);
    }

    /// One of them, counting round and round.
    pub(crate) fn nth(&self, number: usize) -> Option<Post> {
        let posts = self.lock();
        posts.get(number.checked_rem(posts.len())?).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Post>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    /// The same, and one more post that was acknowledged.
    #[must_use]
    pub fn and(mut self, post: Post) -> Self {
        self.acknowledged.push(post);
        self
    }

    /// The same, and what came of one more attempt.
    #[must_use]
    pub fn and_attempt(mut self, title: &str, attempt: Attempt) -> Self {
        match attempt {
            Attempt::Acknowledged(post) => self.acknowledged.push(post),
            Attempt::Unknown => self.unknown.push(title.to_owned()),
            Attempt::NotSent => self.not_sent += 1,
        }
        self
    }
}

impl Load {
    /// So many posts, each under a title of its own, by these authors side by side; and more of them until its end is
    /// waited for, so that whatever a test breaks meanwhile is felt.
    pub fn begin(authors: &[Author], posts: usize) -> Self {
        let (begun, ending) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let published = Published::default();
        let (counter, count) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for author in authors {
            let author = author.clone();
            let (begun, ending) = (begun.clone(), ending.clone());
            let (published, counter) = (published.clone(), counter.clone());
            tasks.spawn(async move {
                let mut told = Told::default();
                loop {
                    let number = begun.fetch_add(1, Ordering::SeqCst) + 1;
                    if number > posts {
                        sleep(REST).await;
                        if ending.load(Ordering::SeqCst) {
                            return told;
                        }
                    }
                    let title = format!("Number {number} of a hard day");
                    if let Some(post) = publish(&author, title, &mut told).await {
                        published.push(post);
                        counter.send_modify(|count| *count += 1);
                    }
                }
            });
        }
        Self { published, count, ending, authors: tasks }
    }

    /// Waits until so many posts are acknowledged.
    ///
    /// # Panics
    ///
    /// If that many never are.
    pub async fn reached(&mut self, posts: usize) {
        let reached = timeout(LIMIT, self.count.wait_for(|count| *count >= posts)).await;
        reached.expect("too few posts are published").expect("the authors have given up");
    }

    /// What is acknowledged, also in future.
    pub fn published(&self) -> Published {
        self.published.clone()
    }

    /// Ends it once all that was asked for is published.
    ///
    /// # Panics
    ///
    /// If an author was refused, or it takes too long.
    pub async fn end(self) -> Outcome {
        self.ending.store(true, Ordering::SeqCst);
        let told = timeout(LIMIT, self.authors.join_all()).await.expect("the load does not end");
        let acknowledged = self.published.posts();
        let not_sent = told.iter().map(|told| told.not_sent).sum();
        let unknown: Vec<String> = told.into_iter().flat_map(|told| told.unknown).collect();
        Outcome { acknowledged, unknown, not_sent }
    }
}

/// Tries until somebody was there to take it.
async fn publish(author: &Author, title: String, told: &mut Told) -> Option<Post> {
    let trying = timeout(LIMIT, async {
        let mut pause = interval(PAUSE);
        pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            match author.try_to_publish(&title).await {
                Attempt::Acknowledged(post) => return Some(post),
                Attempt::Unknown => return None,
                Attempt::NotSent => told.not_sent += 1,
            }
        }
    });
    let acknowledged = trying.await.expect("no command service came back to take the post");
    if acknowledged.is_none() {
        told.unknown.push(title);
    }
    acknowledged
}

//! A reader who reads on and on, and remembers every answer that was wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use testkit::eventually;
use tokio::task::JoinHandle;

use crate::author::Post;
use crate::load::Published;
use crate::reader::Reader;

/// Reads, by turns by slug and by id, what has been published, over and over.
#[derive(Debug)]
pub struct Onlooker {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicUsize>,
    reading: JoinHandle<Vec<String>>,
}

/// What it has seen.
#[derive(Debug)]
pub struct Seen {
    pub reads: usize,
    /// Anything but the post that was asked for, however honest.
    pub wrong: Vec<String>,
}

impl Onlooker {
    pub fn of(reader: &Reader, published: &Published) -> Self {
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (reader, published) = (reader.clone(), published.clone());
        let (told_to_stop, count) = (stop.clone(), reads.clone());
        let reading = tokio::spawn(async move {
            let mut wrong = vec![];
            while !told_to_stop.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                match published.nth(number / 2) {
                    Some(post) => {
                        let by_slug = number.is_multiple_of(2);
                        wrong.extend(misreading(&reader, &post, by_slug).await);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    None => tokio::task::yield_now().await,
                }
            }
            wrong
        });
        Self { stop, reads, reading }
    }

    /// Waits until it has read so many pages from now on.
    ///
    /// # Panics
    ///
    /// If that takes too long.
    pub async fn reads_on(&self, pages: usize) {
        let enough = self.reads.load(Ordering::Relaxed) + pages;
        let read = async || self.reads.load(Ordering::Relaxed) >= enough;
        eventually(&format!("a reader reads {pages} more pages"), read).await;
    }

    /// # Panics
    ///
    /// If it did.
    pub async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.reading.await.expect("the onlooker panicked");
        Seen { reads: self.reads.load(Ordering::Relaxed), wrong }
    }

    /// Stops it, and demands that every single answer was right.
    ///
    /// # Panics
    ///
    /// If one was not.
    pub async fn saw_nothing_wrong(self) {
        let Seen { reads, wrong } = self.stop().await;
        let first: Vec<&String> = wrong.iter().take(5).collect();
        assert!(wrong.is_empty(), "{} of {reads} answers were wrong: {first:#?}", wrong.len());
    }
}

/// What was wrong with reading a post, if anything was.
async fn misreading(reader: &Reader, post: &Post, by_slug: bool) -> Option<String> {
    let address = if by_slug { post.slug() } else { &post.id };
    match reader.try_get(&format!("/posts/{address}")).await {
        Ok(page) if post.is_shown_by(&page) => None,
        Ok(page) => Some(format!("{address}: {page:?}")),
        Err(error) => Some(format!("{address}: {error:?}")),
    }
}

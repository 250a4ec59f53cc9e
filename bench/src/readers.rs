//! Readers of many posts, who look whether they are given what they asked for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::Answer;
use crate::load::Client;
use crate::requests::Request;
use crate::stories::{slug, title};

/// Reads posts of a story by their slugs, one after the other.
#[derive(Debug)]
pub(crate) struct Reader<I> {
    to: SocketAddr,
    /// What is still to be read.
    posts: I,
    mistakes: Arc<Mistakes>,
    /// What is being read, and how that is asked for.
    post: usize,
    request: Request,
}

/// What all readers of a round found wrong.
#[derive(Debug, Default)]
pub(crate) struct Mistakes {
    /// Answers that say something else than is so: another post, or that there is none.
    pub(crate) wrong: AtomicU64,
    /// Answers that are none.
    pub(crate) errors: AtomicU64,
}

impl<I> Reader<I> {
    pub(crate) fn new(to: SocketAddr, posts: I, mistakes: Arc<Mistakes>) -> Self {
        Self { to, posts, mistakes, post: 0, request: Request::get(to, "/posts") }
    }
}

impl<I: Iterator<Item = usize> + Send + 'static> Client for Reader<I> {
    fn next(&mut self) -> Option<&[u8]> {
        self.post = self.posts.next()?;
        self.request = Request::get(self.to, &format!("/posts/{}", slug(self.post)));
        Some(self.request.next())
    }

    /// Mistakes are counted, so that one does not hide the others. A lost connection is none that is.
    fn look_at(&mut self, answer: Answer<'_>) -> anyhow::Result<()> {
        if answer.status >= 500 {
            self.mistakes.errors.fetch_add(1, Ordering::Relaxed);
        } else if answer.status != 200 || !is_page_of(self.post, answer.body) {
            self.mistakes.wrong.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Not by parsing all of it: there are thousands in a second.
fn is_page_of(post: usize, page: &[u8]) -> bool {
    /// Behind that there is nothing but the summary and what follows it.
    const BEGINNING: usize = 160;
    let wanted = format!(r#""slug":"{}","title":"{}","#, slug(post), title(post));
    let beginning = page.get(..BEGINNING).unwrap_or(page);
    page.ends_with(b"}")
        && beginning.windows(wanted.len()).any(|window| window == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"{"id":"019a0000-0000-7000-8000-000000000000","slug":"on-writing-12","title":"On writing 12","summary":"How to begin","content":"Begin."}"#;

    #[test]
    fn only_the_page_of_the_post_itself_is_right() {
        assert!(is_page_of(12, PAGE.as_bytes()));
        for other in [1, 2, 112, 120] {
            assert!(!is_page_of(other, PAGE.as_bytes()), "{other}");
        }
        assert!(!is_page_of(12, &PAGE.as_bytes()[..120]), "it was cut off");
        assert!(!is_page_of(12, b""));
    }

    #[test]
    fn every_answer_but_the_right_page_is_counted() {
        let mistakes = Arc::<Mistakes>::default();
        let to = SocketAddr::from(([127, 0, 0, 1], 80));
        let mut reader = Reader::new(to, [12, 13, 12, 12].into_iter(), Arc::clone(&mistakes));
        for status in [200, 200, 404, 503] {
            assert!(reader.next().is_some());
            reader.look_at(Answer { status, head: b"", body: PAGE.as_bytes() }).unwrap();
        }
        assert!(reader.next().is_none());
        assert_eq!(mistakes.wrong.load(Ordering::Relaxed), 2);
        assert_eq!(mistakes.errors.load(Ordering::Relaxed), 1);
    }
}

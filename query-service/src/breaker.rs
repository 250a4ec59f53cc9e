//! What spares readers the wait for a server that is known not to answer: after a few failures in a row
//! nobody asks it any more, until it answers whoever watches it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use service_runtime::progress;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// So many questions in a row must fail before it opens: a hiccup must not send all readers elsewhere.
const FAILURES: u32 = 3;

/// How long a server has to tell that it is there. More than readers wait: a slow one still helps.
const LIMIT: Duration = Duration::from_secs(1);

/// How long after one question whether it is there the next one comes; and while it may not be there.
const PAUSE: Duration = Duration::from_secs(1);
const SHORT_PAUSE: Duration = Duration::from_millis(200);

/// Stands before a server. Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    name: &'static str,
    failures: Arc<AtomicU32>,
    /// Somebody wants to know at once whether the server is there.
    doubted: Arc<Notify>,
    gone: Arc<Notify>,
}

impl Breaker {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, failures: Arc::default(), doubted: Arc::default(), gone: Arc::default() }
    }

    /// Asking the server would only cost time.
    pub(crate) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// The server has answered a question, whoever asked.
    pub(crate) fn succeeded(&self) {
        // Every reader passes here, and there is hardly ever anything to write.
        if self.failures.load(Ordering::Relaxed) == 0 {
            return;
        }
        if self.failures.swap(0, Ordering::Relaxed) >= FAILURES {
            tracing::info!("{} answers again", self.name);
            self.tell();
        }
    }

    /// It has left one without an answer.
    pub(crate) fn failed(&self, why: &str) {
        self.count(1, why);
    }

    /// Nobody is there at all, which one question is enough to know.
    pub(crate) fn refused(&self, why: &str) {
        self.count(FAILURES, why);
        self.gone.notify_waiters();
    }

    /// Comes when nobody is there any more, for those who would wait in vain.
    pub(crate) async fn gone(&self) {
        self.gone.notified().await;
    }

    /// Has whoever watches the server ask it now: a connection to it has broken.
    pub(crate) fn doubt(&self) {
        self.doubted.notify_one();
    }

    fn count(&self, failures: u32, why: &str) {
        let more = |before: u32| Some(before.saturating_add(failures));
        let before = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        if before.is_ok_and(|before| before < FAILURES) && self.is_open() {
            let name = self.name;
            tracing::warn!("{name} does not answer, so readers do not ask it until it does: {why}");
            self.tell();
        }
    }

    /// Asks whether the server is there, again and again, and more often while it may not be. One refusal is
    /// enough to know that it is not. `tell` is given each answer.
    pub(crate) async fn watch<T, E, F>(
        &self,
        question: impl Fn() -> F,
        is_refusal: impl Fn(&E) -> bool,
        mut tell: impl FnMut(Option<T>),
    ) where
        E: fmt::Display,
        F: Future<Output = Result<T, E>>,
    {
        loop {
            progress::tick();
            let answer = match timeout(LIMIT, question()).await {
                Ok(Ok(answer)) => {
                    self.succeeded();
                    Some(answer)
                }
                Ok(Err(error)) if is_refusal(&error) => {
                    self.refused(&error.to_string());
                    None
                }
                Ok(Err(error)) => {
                    self.failed(&error.to_string());
                    None
                }
                Err(_elapsed) => {
                    self.failed("no answer in time");
                    None
                }
            };
            let answers = if answer.is_some() { 1.0 } else { 0.0 };
            metrics::gauge!("server_answers", "server" => self.name).set(answers);
            self.tell();
            tell(answer);
            let may_be_away = self.failures.load(Ordering::Relaxed) > 0;
            tokio::select! {
                () = sleep(if may_be_away { SHORT_PAUSE } else { PAUSE }) => {}
                () = self.doubted.notified() => {}
            }
        }
    }

    fn tell(&self) {
        let is_open = if self.is_open() { 1.0 } else { 0.0 };
        metrics::gauge!("circuit_open", "server" => self.name).set(is_open);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn only_failures_in_a_row_open_it_and_any_answer_closes_it() {
        let breaker = Breaker::new("Redis");
        for _ in 0..10 {
            breaker.failed("too late");
            breaker.failed("too late");
            assert!(!breaker.is_open());
            breaker.succeeded();
        }
        for _ in 0..3 {
            breaker.failed("too late");
        }
        assert!(breaker.clone().is_open());
        breaker.succeeded();
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_refusal_opens_it_at_once() {
        let breaker = Breaker::new("Redis");
        breaker.refused("nobody is there");
        assert!(breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_asked_more_often_and_let_in_with_its_first_answer() {
        let (breaker, hangs) = (Breaker::new("Redis"), Cell::new(false));
        let (begun, asked) = (Instant::now(), RefCell::new(vec![]));
        let question = || {
            asked.borrow_mut().push(begun.elapsed().as_millis());
            let hangs = hangs.get();
            async move { if hangs { pending().await } else { Ok::<(), String>(()) } }
        };
        let story = async {
            sleep(Duration::from_millis(1500)).await;
            hangs.set(true);
            sleep(Duration::from_millis(2000)).await;
            assert!(!breaker.is_open(), "one silence is a hiccup");
            sleep(Duration::from_millis(3000)).await;
            assert!(breaker.is_open());
            hangs.set(false);
            sleep(Duration::from_millis(1200)).await;
            assert!(!breaker.is_open());
        };
        let watching = breaker.watch(question, |_error| false, |_answer| {});
        tokio::select! {
            () = watching => {}
            () = story => {}
        }
        // Each second while it answers; a fifth of one after each silence, which lasts a second.
        assert_eq!(asked.into_inner(), [0, 1000, 2000, 3200, 4400, 5600, 6800]);
    }
}

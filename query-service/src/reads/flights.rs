//! Single flight: while an answer is being fetched, whoever asks the same waits for it instead of asking
//! again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::Shared;
use tokio::sync::oneshot;
use tracing::Instrument as _;

/// The questions under way, each by its key. Failures are shared like answers, and none is kept.
#[derive(Debug)]
pub(crate) struct Flights<K, T> {
    under_way: Arc<UnderWay<K, T>>,
}

type Flight<T> = Shared<oneshot::Receiver<T>>;
type UnderWay<K, T> = Mutex<HashMap<K, Flight<T>>>;

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self { under_way: Arc::default() }
    }
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The answer of the flight that is under way, or else of one that `start` begins; `None` if it
    /// panicked. A flight goes on when those who wait for it have gone: if one that nobody drives were
    /// joined later, it would answer with what it saw long ago.
    pub(crate) async fn join<F>(&self, key: &K, start: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (flight, landing) = self.join_or_begin(key);
        if let Some(landing) = landing {
            let (work, end) =
                (start(), End { key: key.clone(), under_way: self.under_way.clone() });
            let flight = async move {
                let end = end;
                let answer = work.await;
                // Ends before its answer is seen, so whoever asks after that asks anew.
                drop(end);
                // Nobody may be waiting any more.
                let _ = landing.send(answer);
            };
            // What it logs names the request that began it.
            tokio::spawn(flight.in_current_span());
        }
        flight.await.ok()
    }

    fn join_or_begin(&self, key: &K) -> (Flight<T>, Option<oneshot::Sender<T>>) {
        let mut under_way = lock(&self.under_way);
        if let Some(flight) = under_way.get(key) {
            return (flight.clone(), None);
        }
        let (landing, flight) = oneshot::channel();
        let flight = flight.shared();
        under_way.insert(key.clone(), flight.clone());
        (flight, Some(landing))
    }
}

/// Takes a flight out of the table when dropped, also if it panicked.
struct End<K: Eq + Hash, T> {
    key: K,
    under_way: Arc<UnderWay<K, T>>,
}

impl<K: Eq + Hash, T> Drop for End<K, T> {
    fn drop(&mut self) {
        lock(&self.under_way).remove(&self.key);
    }
}

fn lock<K, T>(under_way: &UnderWay<K, T>) -> MutexGuard<'_, HashMap<K, Flight<T>>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn many_who_ask_the_same_at_once_share_one_answer() {
        let flights = Flights::new();
        let begun = AtomicU32::new(0);
        let ask = |key| flights.join(key, || slowly(begun.fetch_add(1, Ordering::Relaxed)));
        let answers = join_all([ask(&"a"), ask(&"a"), ask(&"b"), ask(&"a")]).await;
        assert_eq!(answers, [Some(0), Some(0), Some(1), Some(0)]);
        assert_eq!(ask(&"a").await, Some(2), "an answer was kept");
    }

    #[tokio::test]
    async fn a_flight_goes_on_without_whoever_began_it() {
        let flights = Flights::new();
        let first = flights.join(&"a", || slowly(1));
        assert!(tokio::time::timeout(Duration::from_millis(1), first).await.is_err());
        assert_eq!(flights.join(&"a", || slowly(2)).await, Some(1));
    }

    #[tokio::test]
    async fn a_flight_that_panicked_is_over() {
        let flights = Flights::new();
        let panics = async || -> u32 { panic!("no") };
        assert_eq!(flights.join(&"a", panics).await, None);
        assert_eq!(flights.join(&"a", || slowly(2)).await, Some(2));
    }

    async fn slowly(answer: u32) -> u32 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer
    }
}

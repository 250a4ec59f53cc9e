//! Waiting for something to become true, instead of sleeping and hoping.

use std::time::{Duration, Instant};

/// Tests have what must not end by itself last longer: a minute or more.
const LIMIT: Duration = Duration::from_secs(45);
const PAUSE: Duration = Duration::from_millis(15);

/// Asks until the answer is yes.
///
/// # Panics
///
/// After 45 s, saying that `what` did not happen.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(LIMIT, what, condition).await;
}

/// Asks until there is an answer, and gives it.
///
/// # Panics
///
/// As [`eventually`].
pub async fn eventually_some<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let mut answer = None;
    eventually(what, async || {
        answer = question().await;
        answer.is_some()
    })
    .await;
    answer.expect("there was an answer")
}

/// As [`eventually`], with a limit of its own.
pub async fn eventually_within(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let start = Instant::now();
    // A condition that hangs must not outlast the limit either.
    let asked = tokio::time::timeout(limit, async {
        while !condition().await {
            tokio::time::sleep(PAUSE).await;
        }
    });
    assert!(asked.await.is_ok(), "this did not happen within {:?}: {what}", start.elapsed());
}

//! Several command services on one store: whatever each keeps in memory, every answer is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::{Proxy, Way, shared};
use uuid::Uuid;

use crate::support::{new_database, start_through, start_with};
use crate::witness::changes_at_random;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_processes_that_change_the_same_posts_each_tells_the_truth() {
    let database = new_database().await;
    let here = start_with(database.clone(), &[]).await;
    let there = start_with(database, &[]).await;
    let tally = changes_at_random(&[&here, &there], 12, 60).await;
    assert!(tally.recorded > 50 && tally.unchanged > 50 && tally.refused > 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tells_the_truth_while_their_connections_keep_breaking() {
    let database = new_database().await;
    let (one, url_of_one) = shared().postgres_proxy(database.name());
    let (two, url_of_two) = shared().postgres_proxy(database.name());
    let here = start_through(database.clone(), &url_of_one, &[]).await;
    let there = start_through(database, &url_of_two, &[]).await;
    let over = Arc::new(AtomicBool::new(false));
    let breaking = tokio::spawn(keep_breaking([one, two], Arc::clone(&over)));
    let tally = changes_at_random(&[&here, &there], 12, 60).await;
    over.store(true, Ordering::SeqCst);
    let breaks = breaking.await.unwrap();
    assert!(breaks > 3, "only {breaks} connections were broken");
    assert!(tally.recorded > 20 && tally.unchanged > 20, "{tally:?}");
}

/// Breaks one connection after another, each somewhere in what it carries, and tells how many.
async fn keep_breaking(proxies: [Proxy; 2], over: Arc<AtomicBool>) -> usize {
    let mut breaks = 0;
    while !over.load(Ordering::SeqCst) {
        let [which, way, near, far, ..] = *Uuid::new_v4().as_bytes();
        let proxy = &proxies[usize::from(which % 2)];
        let way = if way < 128 { Way::Up } else { Way::Down };
        proxy.break_after(way, usize::from(near) * usize::from(far) / 32);
        // Long enough for a connection to be made, and something to be done by it.
        tokio::time::sleep(Duration::from_millis(300)).await;
        breaks += 1;
    }
    breaks
}

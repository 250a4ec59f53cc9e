//! Waiting until views have come far enough.

use std::time::{Duration, Instant};

use domain::{Partition, Partitions, Position};
use read_model::{Guarded, KeySpace, Views, waiting};

use crate::support::{Post, Store};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn who_waits_goes_on_once_the_partition_has_reached_the_position() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2);
    let (waiting, task) = waiting(store.views.clone(), 10);
    let task = tokio::spawn(task.run(|| {}));
    let reached = async |position, limit| {
        waiting.reached(1, &[(Partition(0), Position(position))], limit).await
    };
    let project = async {
        assert!(!reached(1, SHORT).await, "nothing is projected yet");
        assert_eq!(store.project(&post, 1).await, Guarded::Written);
        assert!(!reached(2, SHORT).await, "only the first event is projected");
        assert_eq!(store.project(&post, 2).await, Guarded::Written);
    };
    let ((), first, second) = tokio::join!(project, reached(1, LONG), reached(2, LONG));
    assert!(first && second);
    let pair = |partition, position| (Partition(partition), Position(position));
    assert!(!waiting.reached(2, &[pair(0, 2)], SHORT).await, "of another incarnation");
    assert!(!waiting.reached(1, &[pair(1, 0)], SHORT).await, "there is no such partition");
    assert!(!waiting.reached(1, &[pair(0, 2), pair(1, 0)], SHORT).await, "not all of them");
    task.abort();
}

#[tokio::test]
async fn only_the_partitions_that_are_waited_for_are_polled() {
    let redis = testkit::own_redis().await;
    let (keys, partitions) = (KeySpace::new("waits").unwrap(), Partitions::new(16).unwrap());
    let views = Views::new(&redis.url(), keys, partitions, LONG).unwrap();
    let (waiting, task) = waiting(views, 10);
    let task = tokio::spawn(task.run(|| {}));
    let mut admin = testkit::patient_connection(&redis.url()).await.unwrap();
    redis::cmd("CONFIG").arg("RESETSTAT").query_async::<()>(&mut admin).await.unwrap();
    let both = [3, 4].map(|partition| (Partition(partition), Position(1)));
    tokio::join!(
        waiting.reached(1, &both, Duration::from_secs(1)),
        waiting.reached(1, &both[..1], Duration::from_secs(1)),
    );
    let text: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut admin).await.unwrap();
    let calls = text.split("cmdstat_hmget:calls=").nth(1).unwrap();
    let calls: u32 = calls.split(',').next().unwrap().parse().unwrap();
    // Two in each poll, every five milliseconds at most.
    assert!((1..=420).contains(&calls), "{calls}");
    task.abort();
}

#[tokio::test]
async fn beyond_their_number_requests_do_not_wait_and_each_takes_one_place() {
    let store = Store::new().await;
    let (waiting, _no_task) = waiting(store.views.clone(), 2);
    let pairs: Vec<_> = (0..16).map(|number| (Partition(number), Position(1))).collect();
    let wait = async |limit| waiting.reached(1, &pairs, limit).await;
    let third = async {
        tokio::task::yield_now().await;
        let begun = Instant::now();
        assert!(!wait(LONG).await);
        assert!(begun.elapsed() < LONG, "it waited");
        // The others have their places still.
    };
    let short = Duration::from_secs(5);
    let (first, second, ()) = tokio::join!(wait(short), wait(short), third);
    assert!(!first && !second);
}

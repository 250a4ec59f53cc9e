//! Waiting until views have come far enough.

use std::time::Duration;

use domain::{Partition, Position};
use read_model::{Guarded, waiting};

use crate::support::{Post, Store};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn who_waits_goes_on_once_the_partition_has_reached_the_position() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2);
    let (waiting, task) = waiting(store.views.clone());
    let task = tokio::spawn(task.run(|| {}));
    let reached = |position, limit| waiting.reached(1, Partition(0), Position(position), limit);
    let project = async {
        assert!(!reached(1, SHORT).await, "nothing is projected yet");
        assert_eq!(store.project(&post, 1).await, Guarded::Written);
        assert!(!reached(2, SHORT).await, "only the first event is projected");
        assert_eq!(store.project(&post, 2).await, Guarded::Written);
    };
    let ((), first, second) = tokio::join!(project, reached(1, LONG), reached(2, LONG));
    assert!(first && second);
    assert!(!waiting.reached(2, Partition(0), Position(2), SHORT).await, "of another life");
    assert!(!waiting.reached(1, Partition(1), Position(0), SHORT).await, "there is no such");
    task.abort();
}

//! Complete sets of views side by side, and what is done to one as a whole.

use domain::{Partition, Point, Position};
use read_model::{Fill, Guarded, Part, Removal, Watermark};
use redis::AsyncCommands as _;
use uuid::Uuid;

use crate::support::{EPOCH, Post, Store, beginning, fill};

const P0: Partition = Partition(0);

#[tokio::test]
async fn views_that_are_switched_are_another_generation_and_those_that_are_pinned_are_not() {
    let store = Store::new().await;
    let post = Post::drafted(1);
    store.project(&post, 1).await;
    let (reader, writer) = (store.views.clone(), store.views.of_generation(1));
    store.views.switch_to(2);
    assert_eq!((reader.generation(), writer.generation()), (2, 1));
    assert!(reader.row(post.id).await.unwrap().row.is_none());
    assert!(writer.row(post.id).await.unwrap().row.is_some());
    reader.remember_active(2, 7).await.unwrap();
    assert_eq!(writer.active_generation().await.unwrap(), Some((2, 7)));
}

#[tokio::test]
async fn a_part_is_built_once_it_is_noted_everywhere_and_forgotten_with_what_it_vouches_for() {
    let store = Store::new().await;
    let marks = marks(&store).await;
    for part in [0, 9] {
        let part = store.views.begin_part(part, Uuid::new_v4());
        assert!(store.views.mark_built(&marks, &part).await.unwrap());
    }
    let built = async |marks| {
        let built = store.views.built(marks, 11).await.unwrap();
        built
            .iter()
            .enumerate()
            .filter(|(_, built)| **built)
            .map(|(part, _)| part)
            .collect::<Vec<_>>()
    };
    assert_eq!(built(&marks).await, [0, 9]);
    let mut others = marks.clone();
    others[0].epoch.push_str("-another");
    assert_eq!(built(&others).await, [0; 0]);
}

#[tokio::test]
async fn a_part_of_which_redis_has_forgotten_a_batch_is_not_noted() {
    let store = Store::new().await;
    let marks = marks(&store).await;
    let posts = [Post::drafted(1), Post::drafted(2)];
    let write = async |part: &mut Part, post: &Post| {
        let fill = fill(P0, 9, vec![(post.id, post.row_at(2))]);
        store.views.fill_batch(part, &[fill]).await.unwrap() == [Guarded::Written]
    };
    let begin = || store.views.begin_part(7, Uuid::new_v4());
    let field = async || {
        let field: Option<String> =
            store.redis(P0).hget(store.key(P0, "watermark"), "part:7").await.unwrap();
        field
    };
    let forget = async || {
        store.redis(P0).hdel::<_, _, ()>(store.key(P0, "watermark"), "part:7").await.unwrap();
    };

    // In their midst.
    let mut part = begin();
    assert!(write(&mut part, &posts[0]).await);
    forget().await;
    assert!(!write(&mut part, &posts[1]).await);
    assert!(store.row(posts[1].id).await.is_none());
    assert!(!store.views.mark_built(&marks, &part).await.unwrap());
    // The last of them.
    let mut part = begin();
    for post in &posts {
        assert!(write(&mut part, post).await);
    }
    forget().await;
    assert!(!store.views.mark_built(&marks, &part).await.unwrap());
    // What another try has written vouches for nothing of this one.
    let (mut part, mut other) = (begin(), begin());
    assert!(write(&mut part, &posts[0]).await);
    assert!(write(&mut other, &posts[0]).await);
    assert!(!write(&mut part, &posts[1]).await);
    assert!(!store.views.mark_built(&marks, &part).await.unwrap());
    assert!(!store.views.built(&marks, 8).await.unwrap()[7]);

    let mut part = begin();
    for post in &posts {
        assert!(write(&mut part, post).await);
    }
    assert!(field().await.is_some());
    for _again in 0..2 {
        assert!(store.views.mark_built(&marks, &part).await.unwrap());
    }
    assert!(store.views.built(&marks, 8).await.unwrap()[7]);
    assert_eq!(field().await, None);
}

#[tokio::test]
async fn a_partition_of_which_redis_has_forgotten_a_part_is_not_declared_whole() {
    let store = Store::empty(2).await;
    for partition in [0, 1].map(Partition) {
        let head = Point { position: Position(9), ..Point::START };
        let new = beginning(partition, EPOCH, head, None);
        assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
    }
    let marks = marks(&store).await;
    for number in 0..3 {
        let part = store.views.begin_part(number, Uuid::new_v4());
        assert!(store.views.mark_built(&marks, &part).await.unwrap());
    }
    let notes = store.key(Partition(1), &format!("built:{EPOCH}"));
    store.redis(Partition(1)).setbit::<_, ()>(&notes, 1, false).await.unwrap();
    assert!(!store.views.end_build(&marks, 3).await.unwrap());
    let unfilled = async |partition| store.watermark(partition).await.unwrap().unfilled_below;
    assert_eq!(unfilled(Partition(1)).await, Some(Position(10)));

    store.redis(Partition(1)).setbit::<_, ()>(&notes, 1, true).await.unwrap();
    for _again in 0..2 {
        assert!(store.views.end_build(&marks, 3).await.unwrap());
    }
    assert_eq!(unfilled(Partition(0)).await, None);
    assert_eq!(unfilled(Partition(1)).await, None);
}

async fn marks(store: &Store) -> Vec<Watermark> {
    store.views.watermarks().await.unwrap().into_iter().flatten().collect()
}

#[tokio::test]
async fn a_repair_replaces_what_says_that_it_is_newer_but_only_as_of_where_the_views_stand() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2);
    store.project(&post, 2).await;
    let key = store.key(P0, &format!("post:{}", post.id));
    store.redis(P0).hset::<_, _, _, ()>(&key, "position", 99).await.unwrap();
    let epoch = store.watermark(P0).await.unwrap().epoch;
    let offer = |as_of| Fill {
        epoch: epoch.clone(),
        ..fill(P0, as_of, vec![(post.id, post.row_at(as_of))])
    };
    assert_eq!(store.views.fill(&offer(2)).await.unwrap(), Guarded::Written);
    assert_eq!(store.row(post.id).await.unwrap().position, Position(99));
    let refused = store.views.repair_all(&[offer(1)]).await.unwrap();
    assert_eq!(refused, [Guarded::Refused(store.watermark(P0).await)]);
    assert_eq!(store.views.repair_all(&[offer(2)]).await.unwrap(), [Guarded::Written]);
    assert_eq!(store.row(post.id).await.unwrap().position, Position(2));
}

#[tokio::test]
async fn a_removed_generation_leaves_nothing_and_takes_nothing_else() {
    let store = Store::new().await;
    let kept = Post::drafted(1).published(2).tagged(3, &["art"]);
    let gone = Post::drafted(4).deleted(5);
    store.project(&kept, 3).await;
    store.project(&gone, 5).await;
    let other = store.views.of_generation(2);
    let mut removal = Removal::default();
    while !other.remove_some(&mut removal).await.unwrap() {}
    assert!(store.row(kept.id).await.is_some());

    let mut removal = Removal::default();
    while !store.views.remove_some(&mut removal).await.unwrap() {}
    assert_eq!(store.contents(P0).await, []);
}

//! While a slot moves from one master to another, its keys are here and there.

use domain::Partition;
use read_model::{Guarded, ListName};
use redis::AsyncCommands as _;

use crate::ground::cluster;
use crate::support::{Post, Store, advance};

const P0: Partition = Partition(0);

#[tokio::test]
async fn whatever_has_moved_already_reads_are_answered_as_before() {
    let store = Store::new().await;
    let posts: Vec<Post> = (1..=3).map(|n| Post::drafted(n).published(n + 10)).collect();
    let rows = posts.iter().map(|post| (post.id, post.row_at(20))).collect();
    assert_eq!(store.advance(advance(P0, 0, 20, rows)).await, Guarded::Written);
    let ids: Vec<_> = posts.iter().map(|post| post.id).collect();
    let read = async || {
        (
            store.views.watermarks().await.unwrap(),
            store.views.rows(&ids).await.unwrap(),
            store.views.cards(&ids).await.unwrap(),
            store.list(ListName::Published).await,
            store.lists_of(&posts[0]).await,
        )
    };
    let before = read().await;
    assert_eq!(before.3.len(), 3);

    let slot = cluster().await.slot_of(&store.key(P0, "watermark")).await;
    let to = (cluster().await.first_owner(slot) + 1) % 3;
    let moving = cluster().await.begin_move(slot, to).await;
    assert_eq!(read().await, before);
    while moving.move_keys(1).await > 0 {
        assert_eq!(read().await, before);
    }
    moving.finish().await;
    assert_eq!(read().await, before);
}

#[tokio::test]
async fn a_moving_partition_takes_a_write_as_a_whole_or_not_at_all() {
    let store = Store::with_partitions(4).await;
    let post = Post::drafted(1).published(2).titled(3, "On reading").tagged(4, &["art"]);
    let partition = store.views.partition_of(post.id);
    assert_eq!(store.project(&post, 3).await, Guarded::Written);
    // So that all keys that the guard is given exist, and only lists that it is not given may have gone.
    let key = store.key(partition, "quarantined");
    store.redis(partition).hset::<_, _, _, ()>(key, "other", 7).await.unwrap();
    let before = store.views.row(post.id).await.unwrap();
    let lists = store.lists_of(&post).await;
    let next = || advance(partition, 3, 4, vec![(post.id, post.row_at(4))]);
    let other = Partition((partition.0 + 1) % 4);

    let slot = cluster().await.slot_of(&store.key(partition, "watermark")).await;
    let to = (cluster().await.first_owner(slot) + 1) % 3;
    let moving = cluster().await.begin_move(slot, to).await;
    let list = store.key(partition, "list:tag:craft");
    moving.move_key(&list).await;
    for from in 0.. {
        let both = [next(), advance(other, from, from + 1, vec![])];
        let answers = store.views.advance(&both).await.unwrap();
        assert!(answers[0].is_err(), "{answers:?}");
        assert_eq!(*answers[1].as_ref().unwrap(), Guarded::Written);
        assert_eq!(store.views.row(post.id).await.unwrap(), before);
        assert_eq!(store.lists_of(&post).await, lists);
        if moving.move_keys(1).await == 0 {
            break;
        }
    }
    moving.finish().await;
    assert_eq!(store.advance(next()).await, Guarded::Written);
    assert_eq!(store.lists_of(&post).await, ["published", "anne", "art", "own", "own published"]);
}

//! Complete sets of views side by side, and what is done to one as a whole.

use domain::{Partition, Position};
use read_model::{Fill, Guarded, Removal};
use redis::AsyncCommands as _;

use crate::support::{Post, Store, fill};

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
    let marks: Vec<_> = store.views.watermarks().await.unwrap().into_iter().flatten().collect();
    for part in [0, 9] {
        assert!(store.views.mark_built(&marks, part, &vec![0; marks.len()]).await.unwrap());
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
    let marks: Vec<_> = store.views.watermarks().await.unwrap().into_iter().flatten().collect();
    let posts = [Post::drafted(1), Post::drafted(2)];
    let batch = |number: usize| {
        let post = &posts[number - 1];
        (u32::try_from(number).unwrap(), fill(P0, 9, vec![(post.id, post.row_at(2))]))
    };
    let write = async |part, number| {
        let answers = store.views.fill_batches(part, &[batch(number)]).await.unwrap();
        answers == [Guarded::Written]
    };
    let note = async |part, number| {
        let mut batches = vec![0; marks.len()];
        batches[0] = number;
        store.views.mark_built(&marks, part, &batches).await.unwrap()
    };
    assert!(write(7, 1).await);
    assert!(!write(8, 2).await, "a batch of another part is not the one before");
    assert!(store.row(posts[1].id).await.is_none());
    // What a replica has that takes over before it has heard of the last batch.
    let mark = store.key(P0, "watermark");
    store.redis(P0).hdel::<_, _, ()>(&mark, "part:7").await.unwrap();
    assert!(!write(7, 2).await);
    assert!(!note(7, 1).await);

    for number in [1, 2] {
        assert!(write(7, number).await);
    }
    assert!(!note(7, 3).await);
    assert!(note(7, 2).await);
    assert!(store.views.built(&marks, 8).await.unwrap()[7]);
    assert!(!store.redis(P0).hexists::<_, _, bool>(&mark, "part:7").await.unwrap());
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

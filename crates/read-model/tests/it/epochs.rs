//! New beginnings, and how far a partition has been filled since.

use domain::{Partition, Point, Position};
use read_model::{Fill, Guarded, ListName, NewEpoch, Views, Watermark};

use crate::support::{Post, Store, at, beginning, fill};

const P0: Partition = Partition(0);

#[tokio::test]
async fn an_epoch_begins_at_the_head_with_everything_still_to_be_filled() {
    let store = Store::empty(1).await;
    let new = beginning(P0, "a", at(8), None);
    assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
    let watermark = store.watermark(P0).await.unwrap();
    assert_eq!((watermark.incarnation, watermark.epoch.as_str()), (1, "a"));
    assert_eq!(watermark.point, at(8));
    assert_eq!(watermark.unfilled_below, Some(Position(9)));
}

#[tokio::test]
async fn nothing_is_to_be_filled_where_nothing_has_happened() {
    let store = Store::empty(1).await;
    let new = beginning(P0, "a", Point::START, None);
    assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
    assert_eq!(store.watermark(P0).await.unwrap().unfilled_below, None);
}

#[tokio::test]
async fn an_epoch_begins_only_where_the_watermark_is_still_the_one_that_was_found() {
    let store = Store::new().await;
    let post = Post::drafted(1).titled(2, "On reading");
    store.project(&post, 1).await;
    let found = store.watermark(P0).await;
    store.project(&post, 2).await;
    let now = store.watermark(P0).await;
    let before = store.contents(P0).await;

    let other_epoch = now.clone().map(|mark| Watermark { epoch: "zeroth".to_owned(), ..mark });
    for found in [found, None, other_epoch] {
        let new = beginning(P0, "second", at(2), found);
        let refused = Guarded::Refused(now.clone());
        assert_eq!(store.views.begin_epoch(&new).await.unwrap(), refused, "{new:?}");
        assert_eq!(store.contents(P0).await, before);
    }

    let gone = Store::empty(1).await;
    let new = beginning(P0, "second", at(2), now);
    assert_eq!(gone.views.begin_epoch(&new).await.unwrap(), Guarded::Refused(None));
    assert_eq!(gone.contents(P0).await, []);
}

#[tokio::test]
async fn of_two_who_begin_an_epoch_at_once_one_does() {
    let store = Store::new().await;
    for round in 0..20 {
        let found = store.watermark(P0).await;
        let begin = |name: &str| beginning(P0, &format!("{name}-{round}"), at(5), found.clone());
        let (a, b) = (begin("a"), begin("b"));
        let answers = tokio::join!(store.views.begin_epoch(&a), store.views.begin_epoch(&b));
        let now = store.watermark(P0).await;
        let winner = match (answers.0.unwrap(), answers.1.unwrap()) {
            (Guarded::Written, Guarded::Refused(found)) if found == now => a,
            (Guarded::Refused(found), Guarded::Written) if found == now => b,
            other => panic!("not one of the two: {other:?}"),
        };
        assert_eq!(now.unwrap().epoch, winner.epoch);
    }
}

#[tokio::test]
async fn a_new_epoch_has_no_lists_and_no_memory_of_them() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).tagged(3, &["art"]);
    store.project(&post, 3).await;
    assert_eq!(store.lists_of(&post).await, ["published", "anne", "art", "own", "own published"]);

    begin(&store.views, beginning(P0, "second", at(3), store.watermark(P0).await)).await;
    assert_eq!(store.lists_of(&post).await, [""; 0]);
    // Nothing is left but the watermark and the row, which counts as absent.
    let keys = store.contents(P0).await.into_iter().map(|(key, _)| key);
    let kinds: Vec<String> = keys.map(|key| key.split(':').nth(3).unwrap().to_owned()).collect();
    assert_eq!(kinds, ["post", "watermark"]);

    // Not even a row as of an earlier position than before the loss is kept out of them.
    begin(&store.views, beginning(P0, "third", at(2), store.watermark(P0).await)).await;
    assert_eq!(store.fill(&post, 2).await, Guarded::Written);
    assert_eq!(store.lists_of(&post).await, ["published", "anne", "craft", "own", "own published"]);
}

#[tokio::test]
async fn a_partition_is_unfilled_until_its_last_part_is_there() {
    let store = Store::empty(1).await;
    begin(&store.views, beginning(P0, "first", at(9), None)).await;
    for (below, lowest, left) in [(10, 6, Some(6)), (6, 3, Some(3)), (3, 0, None)] {
        let part = Fill { unfilled_below: Some(Position(lowest)), ..fill(P0, 9, vec![]) };
        assert_eq!(store.views.fill_part(&part, Position(below)).await.unwrap(), Guarded::Written);
        assert_eq!(store.watermark(P0).await.unwrap().unfilled_below, left.map(Position));
    }
}

#[tokio::test]
async fn a_part_counts_only_behind_the_parts_before_it() {
    let store = Store::empty(1).await;
    let post = Post::drafted(2);
    begin(&store.views, beginning(P0, "first", at(9), None)).await;
    // Redis has forgotten the part down to 6, or somebody else is further down already.
    for (below, lowest) in [(6, 3), (6, 0), (20, 3)] {
        let rows = vec![(post.id, post.row_at(9))];
        let part = Fill { unfilled_below: Some(Position(lowest)), ..fill(P0, 9, rows) };
        let found = store.watermark(P0).await;
        assert_eq!(
            store.views.fill_part(&part, Position(below)).await.unwrap(),
            Guarded::Refused(found)
        );
        assert_eq!(store.watermark(P0).await.unwrap().unfilled_below, Some(Position(10)));
        assert_eq!(store.row(post.id).await, None);
    }
}

#[tokio::test]
async fn a_readers_fill_leaves_open_what_is_to_be_filled() {
    let store = Store::empty(1).await;
    begin(&store.views, beginning(P0, "first", at(9), None)).await;
    assert_eq!(store.fill(&Post::drafted(4), 9).await, Guarded::Written);
    assert_eq!(store.watermark(P0).await.unwrap().unfilled_below, Some(Position(10)));
    let parts = store.views.list(&ListName::Published, None, 10).await.unwrap();
    assert_eq!(parts[0].watermark.as_ref().unwrap().unfilled_below, Some(Position(10)));
}

async fn begin(views: &Views, new: NewEpoch) {
    assert_eq!(views.begin_epoch(&new).await.unwrap(), Guarded::Written);
}

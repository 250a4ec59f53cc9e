//! What the guard lets in, and what it refuses.

use domain::{Claim, Partition, Point, Position};
use read_model::{Advance, Fill, FoundRow, Guarded, Watermark};
use redis::AsyncCommands as _;
use testkit::own_redis;
use uuid::Uuid;

use crate::support::{EPOCH, Post, Store, advance, at, beginning, fill};

const P0: Partition = Partition(0);

#[tokio::test]
async fn an_advance_moves_the_watermark_together_with_the_rows() {
    let store = Store::new().await;
    let post = Post::drafted(2).published(3);
    let rows = vec![(post.id, post.row_at(3))];
    assert_eq!(store.advance(advance(P0, 0, 3, rows)).await, Guarded::Written);
    assert_eq!(store.watermark(P0).await, Some(standing_at(3)));
    assert_eq!(
        store.views.row(post.id).await.unwrap(),
        FoundRow {
            watermark: Some(standing_at(3)),
            is_behind: false,
            row: Some(post.stored_at(3)),
            quarantined: None
        }
    );
}

#[tokio::test]
async fn an_advance_that_does_not_begin_at_the_watermark_is_refused_and_writes_nothing() {
    let store = Store::new().await;
    let post = Post::drafted(2).published(5).titled(8, "On reading");
    store.project(&post, 5).await;
    let before = store.contents(P0).await;

    let rows = || vec![(post.id, post.row_at(8))];
    let good = || advance(P0, 5, 8, rows());
    let other_event = Point { position: Position(5), event_id: Uuid::from_u128(99) };
    for (case, bad) in [
        ("one that came already", advance(P0, 2, 5, rows())),
        ("one from further on", advance(P0, 6, 8, rows())),
        ("one from further back", advance(P0, 0, 8, rows())),
        ("one from another event", Advance { from: other_event, ..good() }),
        ("one of another epoch", Advance { epoch: "second".to_owned(), ..good() }),
        ("one of a later incarnation", Advance { incarnation: 2, ..good() }),
        ("one of an earlier incarnation", Advance { incarnation: 0, ..good() }),
    ] {
        let refused = Guarded::Refused(Some(standing_at(5)));
        assert_eq!(store.advance(bad).await, refused, "{case} was not refused");
        assert_eq!(store.contents(P0).await, before, "{case} wrote something");
    }
    assert_eq!(store.advance(good()).await, Guarded::Written);
}

#[tokio::test]
async fn what_cannot_be_read_is_as_good_as_none_and_gives_way() {
    let store = Store::new().await;
    let post = Post::drafted(2).published(5).titled(8, "On reading");
    store.project(&post, 5).await;
    let id = post.id.to_string();
    let row = store.key(P0, &format!("post:{id}"));
    for to in [5, 8] {
        let mut redis = store.redis(P0);
        redis.hset::<_, _, _, ()>(&row, "position", "no number").await.unwrap();
        redis.hset::<_, _, _, ()>(store.key(P0, "listed"), &id, "no number").await.unwrap();
        assert_eq!(store.row(post.id).await, None);
        let written = match to {
            5 => store.fill(&post, 5).await,
            _ => store.project(&post, 8).await,
        };
        assert_eq!(written, Guarded::Written);
        assert_eq!(store.row(post.id).await, Some(post.stored_at(to)));
        assert_eq!(
            store.lists_of(&post).await,
            ["published", "anne", "craft", "own", "own published"]
        );
    }
}

#[tokio::test]
async fn nothing_is_written_where_there_is_no_watermark() {
    let store = Store::empty(1).await;
    let post = Post::drafted(1);
    let rows = || vec![(post.id, post.row_at(1))];
    assert_eq!(store.advance(advance(P0, 0, 1, rows())).await, Guarded::Refused(None));
    assert_eq!(store.views.fill(&fill(P0, 1, rows())).await.unwrap(), Guarded::Refused(None));
    assert_eq!(store.contents(P0).await, []);
}

#[tokio::test]
async fn of_several_advances_each_is_judged_on_its_own() {
    let store = Store::with_partitions(2).await;
    let posts = [Post::drafted(1), Post::drafted(2), Post::drafted(3)];
    let row = |n: usize| vec![(posts[n].id, posts[n].row_at(9))];
    let advances = [
        advance(Partition(0), 7, 9, row(0)),
        advance(Partition(1), 0, 9, row(1)),
        advance(Partition(0), 0, 9, row(2)),
    ];
    let answers = store.views.advance(&advances).await.unwrap();
    let answers: Vec<Guarded> = answers.into_iter().map(Result::unwrap).collect();
    let refused = Guarded::Refused(Some(standing_at(0)));
    assert_eq!(answers, [refused, Guarded::Written, Guarded::Written]);
}

#[tokio::test]
async fn no_rows_are_asked_for_in_vain() {
    assert_eq!(Store::new().await.views.rows(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn a_row_gives_way_only_to_what_is_newer() {
    let store = Store::new().await;
    let post = Post::drafted(2).titled(5, "On reading").titled(8, "On both");
    store.project(&post, 2).await;
    // Somebody folded the page from a log that was further on than the watermark.
    assert_eq!(store.fill(&post, 8).await, Guarded::Written);
    assert_eq!(store.project(&post, 5).await, Guarded::Written);
    assert_eq!(store.watermark(P0).await, Some(standing_at(5)));
    assert_eq!(store.row(post.id).await, Some(post.stored_at(8)));
    assert_eq!(store.fill(&post, 5).await, Guarded::Written);
    assert_eq!(store.row(post.id).await, Some(post.stored_at(8)));
}

#[tokio::test]
async fn a_late_duplicate_does_not_bring_a_deleted_post_back() {
    let store = Store::new().await;
    let post = Post::drafted(2).published(5).deleted(8);
    store.project(&post, 2).await;
    assert_eq!(store.fill(&post, 8).await, Guarded::Written);
    assert_eq!(store.project(&post, 5).await, Guarded::Written);
    assert_eq!(store.row(post.id).await, Some(post.stored_at(8)));
    assert!(store.row(post.id).await.unwrap().page.is_none());
    assert_eq!(store.lists_of(&post).await, [""; 0]);
}

#[tokio::test]
async fn an_evicted_row_is_not_replaced_by_an_older_one() {
    let store = Store::new().await;
    let post = Post::drafted(5).titled(8, "On reading");
    store.project(&post, 5).await;
    store.project(&post, 8).await;
    store.evict(&post).await;
    assert_eq!(store.fill(&post, 5).await, Guarded::Refused(Some(standing_at(8))));
    assert_eq!(store.row(post.id).await, None);
    assert_eq!(store.fill(&post, 8).await, Guarded::Written);
    assert_eq!(store.row(post.id).await, Some(post.stored_at(8)));
}

#[tokio::test]
async fn a_fill_below_the_watermark_is_refused_whatever_the_row() {
    // The numbers are compared as numbers: as text, 9 would come after 10.
    let store = Store::new().await;
    let (quiet, busy) = (Post::drafted(1), Post::drafted(2).titled(10, "On reading"));
    store.project(&busy, 10).await;
    assert_eq!(store.fill(&quiet, 9).await, Guarded::Refused(Some(standing_at(10))));
    assert_eq!(store.fill(&quiet, 100).await, Guarded::Written);
}

#[tokio::test]
async fn a_fill_of_another_epoch_or_incarnation_is_refused() {
    let store = Store::new().await;
    let post = Post::drafted(5);
    store.project(&post, 5).await;
    store.evict(&post).await;
    let good = || fill(P0, 5, vec![(post.id, post.row_at(5))]);
    for (case, bad) in [
        ("another epoch", Fill { epoch: "zeroth".to_owned(), ..good() }),
        ("another incarnation", Fill { incarnation: 2, ..good() }),
    ] {
        let refused = Guarded::Refused(Some(standing_at(5)));
        assert_eq!(store.views.fill(&bad).await.unwrap(), refused, "{case}");
        assert_eq!(store.row(post.id).await, None, "{case}");
    }
}

#[tokio::test]
async fn a_row_of_another_epoch_counts_as_absent_and_gives_way_to_an_older_one() {
    let store = Store::new().await;
    let post = Post::drafted(5).titled(8, "On reading");
    store.project(&post, 8).await;
    let new = beginning(P0, "second", at(5), store.watermark(P0).await);
    assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
    assert_eq!(store.row(post.id).await, None);
    assert_eq!(store.fill(&post, 5).await, Guarded::Written);
    assert_eq!(store.row(post.id).await, Some(post.stored_at(5)));
}

#[tokio::test]
async fn the_guard_does_not_depend_on_redis_remembering_its_script() {
    let store = Store::new().await;
    let post = Post::drafted(1).titled(2, "On reading");
    for position in [1, 2] {
        flush_scripts(&store).await;
        assert_eq!(store.project(&post, position).await, Guarded::Written);
        flush_scripts(&store).await;
        assert_eq!(store.fill(&post, position).await, Guarded::Written);
    }
    flush_scripts(&store).await;
    let new = beginning(P0, "second", at(2), store.watermark(P0).await);
    assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
}

#[tokio::test]
async fn where_redis_is_full_all_is_refused_and_nothing_is_torn() {
    let redis = own_redis().await;
    let store = Store::empty_at(&redis.url(), 1).await;
    let new = beginning(P0, EPOCH, Point::START, None);
    assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
    let post = Post::drafted(1).published(2).titled(3, "On reading");
    store.project(&post, 2).await;
    let before = store.contents(P0).await;

    let mut connection = store.redis(P0);
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory").arg("1").exec_async(&mut connection).await.unwrap();
    let rows = || vec![(post.id, post.row_at(3))];
    assert!(store.views.advance(&[advance(P0, 2, 3, rows())]).await.unwrap()[0].is_err());
    assert!(store.views.fill(&fill(P0, 3, rows())).await.is_err());
    assert_eq!(store.contents(P0).await, before);
}

#[tokio::test]
async fn a_slug_is_remembered_for_its_incarnation() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2);
    let slug = "on-writing".parse().unwrap();
    let claim = Claim { post_id: post.id, position: Position(2) };
    let slugs = vec![("on-writing".parse().unwrap(), claim)];
    let rows = vec![(post.id, post.row_at(2))];
    store.advance(Advance { slugs, ..advance(P0, 0, 2, rows) }).await;
    assert_eq!(store.views.claim_of(1, &slug).await.unwrap(), Some(claim));
    assert_eq!(store.views.claim_of(2, &slug).await.unwrap(), None);
}

async fn flush_scripts(store: &Store) {
    let mut redis = store.redis(P0);
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut redis).await.unwrap();
}

fn standing_at(position: u64) -> Watermark {
    let (epoch, point) = (EPOCH.to_owned(), at(position));
    Watermark { incarnation: 1, epoch, point, unfilled_below: None }
}

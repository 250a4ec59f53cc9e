//! Pages that are set aside, and what is told to those who keep copies.

use domain::{Claim, Partition, Position};
use futures::StreamExt as _;
use read_model::{Advance, Fill, Flag, Guarded, ListName};

use crate::support::{Post, Store, advance, at, beginning, fill};

const P0: Partition = Partition(0);

#[tokio::test]
async fn a_quarantined_page_takes_no_event_and_no_fill_and_the_watermark_moves_on() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).titled(3, "bad").titled(5, "later");
    quarantine(&store, &post).await;
    assert_eq!(store.watermark(P0).await.unwrap().point, at(3));

    let later = advance(P0, 3, 5, vec![(post.id, post.row_at(5))]);
    assert_eq!(store.advance(later).await, Guarded::Written);
    let refold = fill(P0, 5, vec![(post.id, post.row_at(5))]);
    assert_eq!(store.views.fill(&refold).await.unwrap(), Guarded::Written);

    assert_eq!(store.watermark(P0).await.unwrap().point, at(5));
    let found = found(&store, &post).await;
    assert_eq!(found, (Some(post.stored_at(2)), Some(Position(3))));
    assert_eq!(store.list(ListName::Published).await, [post.id]);
}

#[tokio::test]
async fn the_row_of_a_quarantined_page_can_be_put_back_as_it_was_before() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).titled(3, "bad");
    quarantine(&store, &post).await;
    store.evict(&post).await;
    let unmarked = fill(P0, 3, vec![(post.id, post.row_at(2))]);
    assert_eq!(store.views.fill(&unmarked).await.unwrap(), Guarded::Written);
    assert_eq!(found(&store, &post).await, (None, Some(Position(3))));

    let flags = vec![(post.id, Flag::Quarantined(Position(3)))];
    let refold = Fill { flags, ..fill(P0, 3, vec![(post.id, post.row_at(2))]) };
    assert_eq!(store.views.fill(&refold).await.unwrap(), Guarded::Written);
    assert_eq!(found(&store, &post).await, (Some(post.stored_at(2)), Some(Position(3))));
}

#[tokio::test]
async fn a_released_page_takes_what_it_missed() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).titled(3, "mended").titled(5, "later");
    quarantine(&store, &post).await;
    let release = Fill {
        flags: vec![(post.id, Flag::Released)],
        ..fill(P0, 3, vec![(post.id, post.row_at(3))])
    };
    assert_eq!(store.views.fill(&release).await.unwrap(), Guarded::Written);
    assert_eq!(found(&store, &post).await, (Some(post.stored_at(3)), None));
    let later = advance(P0, 3, 5, vec![(post.id, post.row_at(5))]);
    assert_eq!(store.advance(later).await, Guarded::Written);
    assert_eq!(found(&store, &post).await, (Some(post.stored_at(5)), None));
}

#[tokio::test]
async fn a_run_that_passes_over_a_page_is_refused_once_that_is_released() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).titled(3, "mended").titled(5, "later");
    quarantine(&store, &post).await;
    assert_eq!(store.views.quarantined(P0).await.unwrap(), [(post.id, Position(3))]);
    let past_it =
        |from, to| Advance { flags: vec![(post.id, Flag::Still)], ..advance(P0, from, to, vec![]) };
    assert_eq!(store.advance(past_it(3, 5)).await, Guarded::Written);
    let release = Fill {
        flags: vec![(post.id, Flag::Released)],
        ..fill(P0, 5, vec![(post.id, post.row_at(5))])
    };
    assert_eq!(store.views.fill(&release).await.unwrap(), Guarded::Written);
    let refused = Guarded::Refused(store.watermark(P0).await);
    assert_eq!(store.advance(past_it(5, 7)).await, refused);
    assert_eq!(store.watermark(P0).await.unwrap().point, at(5));
}

#[tokio::test]
async fn a_new_epoch_knows_of_no_quarantine() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).titled(3, "bad");
    quarantine(&store, &post).await;
    let found_mark = store.watermark(P0).await;
    let new = beginning(P0, "another", at(3), found_mark);
    assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
    assert_eq!(found(&store, &post).await, (None, None));
}

#[tokio::test]
async fn what_has_changed_is_announced_with_the_slugs_it_took() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2);
    let mut heard = store.views.listener().unwrap().get_async_pubsub().await.unwrap();
    heard.subscribe(format!("{}:changed", store.prefix)).await.unwrap();

    let slugs = ["on-writing", "on-writing-2"];
    let claim = Claim { post_id: post.id, position: Position(2) };
    let claims = slugs.map(|slug| (slug.parse().unwrap(), claim)).to_vec();
    let rows = vec![(post.id, post.row_at(2))];
    let refused = advance(P0, 1, 2, rows.clone());
    assert_ne!(store.advance(refused).await, Guarded::Written);
    let advance = Advance { slugs: claims, ..advance(P0, 0, 2, rows) };
    assert_eq!(store.advance(advance).await, Guarded::Written);

    let told = heard.on_message().next().await.unwrap().get_payload::<String>().unwrap();
    assert_eq!(told, format!("{} published 1 2 on-writing on-writing-2\n", post.id));
}

/// Lets the first two events of a post in, and sets it aside for the third.
async fn quarantine(store: &Store, post: &Post) {
    let run = Advance {
        flags: vec![(post.id, Flag::Quarantined(Position(3)))],
        ..advance(P0, 0, 3, vec![(post.id, post.row_at(2))])
    };
    assert_eq!(store.advance(run).await, Guarded::Written);
}

async fn found(store: &Store, post: &Post) -> (Option<read_model::StoredRow>, Option<Position>) {
    let found = store.views.row(post.id).await.unwrap();
    (found.row, found.quarantined)
}

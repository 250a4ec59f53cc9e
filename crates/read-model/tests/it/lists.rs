//! Which posts are in which lists, and in which order.

use domain::Partition;
use read_model::{Guarded, ListName, Place};

use crate::support::{Post, Store, advance};

const NONE: [&str; 0] = [];
const DRAFT: [&str; 2] = ["own", "own drafts"];
const PUBLISHED: [&str; 5] = ["published", "anne", "craft", "own", "own published"];

#[tokio::test]
async fn what_is_published_is_in_public_lists_and_everything_in_its_authors_own() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).unpublished(3).published(4).deleted(5);
    for (position, lists) in
        [(1, &DRAFT[..]), (2, &PUBLISHED), (3, &DRAFT), (4, &PUBLISHED), (5, &NONE)]
    {
        assert_eq!(store.project(&post, position).await, Guarded::Written);
        assert_eq!(store.lists_of(&post).await, lists, "at {position}");
    }
}

#[tokio::test]
async fn a_post_leaves_the_list_of_a_tag_that_is_taken_off() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).tagged(3, &["art", "craft"]).tagged(4, &["art"]);
    let post = post.tagged(5, &[]);
    for (position, lists) in [
        (2, &PUBLISHED[..]),
        (3, &["published", "anne", "craft", "art", "own", "own published"]),
        (4, &["published", "anne", "art", "own", "own published"]),
        (5, &["published", "anne", "own", "own published"]),
    ] {
        assert_eq!(store.project(&post, position).await, Guarded::Written);
        assert_eq!(store.lists_of(&post).await, lists, "at {position}");
    }
}

#[tokio::test]
async fn a_late_fill_does_not_put_a_post_back_into_a_list() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).unpublished(3).titled(4, "On reading");
    store.project(&post, 2).await;
    // Readers folded the page while the watermark was behind, and their rows arrive in the wrong order.
    assert_eq!(store.fill(&post, 3).await, Guarded::Written);
    store.evict(&post).await;
    assert_eq!(store.fill(&post, 2).await, Guarded::Written);
    assert_eq!(store.lists_of(&post).await, DRAFT);
    store.project(&post, 4).await;
    assert_eq!(store.lists_of(&post).await, DRAFT);
}

#[tokio::test]
async fn a_post_whose_row_is_newer_is_in_no_list_that_its_row_denies() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2).unpublished(3);
    store.project(&post, 1).await;
    // It was in no public list before, and so is not missed in any.
    assert_eq!(store.fill(&post, 3).await, Guarded::Written);
    assert_eq!(store.fill(&post, 2).await, Guarded::Written);
    assert_eq!(store.lists_of(&post).await, DRAFT);
    assert_eq!(store.project(&post, 2).await, Guarded::Written);
    assert_eq!(store.lists_of(&post).await, DRAFT);
}

#[tokio::test]
async fn a_late_fill_does_not_put_a_deleted_post_back_into_its_authors_own_lists() {
    let store = Store::new().await;
    let post = Post::drafted(1).titled(2, "On reading").deleted(3);
    store.project(&post, 1).await;
    assert_eq!(store.fill(&post, 3).await, Guarded::Written);
    store.evict(&post).await;
    assert_eq!(store.fill(&post, 2).await, Guarded::Written);
    assert_eq!(store.lists_of(&post).await, NONE);
}

#[tokio::test]
async fn a_post_keeps_its_place_among_its_authors_own() {
    let store = Store::new().await;
    let posts = [Post::drafted(1).published(4).unpublished(5), Post::drafted(2).published(3)];
    let own = async |store: &Store| store.list(ListName::Own("anne".parse().unwrap())).await;
    for (number, position) in [(0, 1), (1, 2), (1, 3), (0, 4), (0, 5)] {
        assert_eq!(store.project(&posts[number], position).await, Guarded::Written);
        if position > 1 {
            assert_eq!(own(&store).await, [posts[1].id, posts[0].id], "at {position}");
        }
        if position == 4 {
            // In public it is the first publication that counts.
            assert_eq!(store.list(ListName::Published).await, [posts[0].id, posts[1].id]);
        }
    }
}

#[tokio::test]
async fn an_evicted_row_stays_in_its_lists() {
    let store = Store::new().await;
    let post = Post::drafted(1).published(2);
    store.project(&post, 2).await;
    store.evict(&post).await;
    assert_eq!(store.lists_of(&post).await, PUBLISHED);
}

#[tokio::test]
async fn a_list_is_read_page_by_page_without_skipping_or_repeating() {
    let store = Store::with_partitions(4).await;
    let posts: Vec<Post> = (0..40).map(|n| Post::drafted(1).published(100 - n)).collect();
    for partition in (0..4).map(Partition) {
        let ours = posts.iter().filter(|post| store.views.partition_of(post.id) == partition);
        let rows = ours.map(|post| (post.id, post.row_at(100))).collect();
        assert_eq!(store.advance(advance(partition, 0, 100, rows)).await, Guarded::Written);
    }

    let mut read: Vec<Place> = vec![];
    loop {
        let page = page(&store, read.last().copied(), 7).await;
        // Between two pages, the last post that was shown goes away.
        if let Some(last) = page.last() {
            let gone = posts.iter().find(|post| post.id == last.post_id).unwrap();
            store.project(&gone.clone().deleted(101), 101 + read.len() as u64).await;
        }
        let ended = page.len() < 7;
        read.extend(page);
        if ended {
            break;
        }
    }
    assert!(read.is_sorted_by(|one, next| one > next));
    let read: Vec<_> = read.iter().map(|place| place.post_id).collect();
    // They were published in the other order.
    assert_eq!(read, posts.iter().map(|post| post.id).collect::<Vec<_>>());
}

#[tokio::test]
async fn posts_published_at_once_are_told_apart_by_their_ids() {
    let store = Store::new().await;
    let posts: Vec<Post> = (0..5).map(|_| Post::drafted(1).published(2)).collect();
    let rows = posts.iter().map(|post| (post.id, post.row_at(2))).collect();
    store.advance(advance(Partition(0), 0, 2, rows)).await;
    let mut read = vec![];
    while let Some(place) = page(&store, read.last().copied(), 1).await.pop() {
        read.push(place);
    }
    let mut ids: Vec<_> = posts.iter().map(|post| post.id).collect();
    ids.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(read.iter().map(|place| place.post_id).collect::<Vec<_>>(), ids);
}

/// What a reader makes of the parts of a list.
async fn page(store: &Store, after: Option<Place>, limit: usize) -> Vec<Place> {
    let parts = store.views.list(&ListName::Published, after, limit).await.unwrap();
    let mut places: Vec<Place> = parts.into_iter().flat_map(|part| part.places).collect();
    places.sort_unstable_by(|a, b| b.cmp(a));
    places.truncate(limit);
    places
}

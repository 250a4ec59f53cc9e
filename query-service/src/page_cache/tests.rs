use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use clap::Parser as _;
use domain::{Partitions, Position};
use event_log::{Store, TokenKey};
use futures::future::join_all;
use read_model::{Change, Visibility};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;

const ID: PostId = PostId(Uuid::from_u128(0x0192_f0c1_2d3e_7f4a_8b5c_6d7e_8f90_1234));
const OTHER: PostId = PostId(Uuid::from_u128(0x0192_f0c1_2d3e_7f4a_8b5c_6d7e_8f90_1235));

#[tokio::test]
async fn what_changes_while_it_is_read_is_not_kept_as_fresh() {
    let memory = listening();
    let (reading, answer) = begin_to_read(&memory).await;
    memory.inner.moments.end(ID, &[]);
    answer.send(page(10, "old")).unwrap();
    assert_eq!(reading.await.unwrap().unwrap().post.position, Position(10));
    assert!(memory.fresh(ID).is_none());
    assert!(memory.stale_copy(ID).is_some());
}

#[tokio::test]
async fn who_asks_after_an_announcement_does_not_join_a_read_from_before_it() {
    let memory = listening();
    let (reading, answer) = begin_to_read(&memory).await;
    memory.inner.moments.end(ID, &[]);
    let own = memory.post(ID, || async { Ok(page(20, "new")) });
    let own = tokio::time::timeout(Duration::from_secs(10), own).await;
    assert_eq!(own.expect("it waits for the other").unwrap().post.position, Position(20));
    answer.send(page(10, "old")).unwrap();
    reading.await.unwrap().unwrap();
    assert_eq!(memory.fresh(ID).unwrap().post.position, Position(20));
}

#[tokio::test]
async fn what_was_read_before_a_reconnection_or_from_other_views_is_not_kept_as_fresh() {
    let memory = listening();
    let moment = memory.inner.moments.of_post(ID);
    memory.end_all();
    memory.keep(ID, Arc::new(page(10, "old")), moment, Instant::now());
    assert!(memory.fresh(ID).is_none());
    assert!(memory.stale_copy(ID).is_some());
}

#[tokio::test]
async fn of_two_reads_in_one_moment_the_one_that_saw_more_is_kept() {
    let memory = listening();
    for position in [20, 10] {
        keep(&memory, ID, page(position, "x"));
    }
    assert_eq!(memory.fresh(ID).unwrap().post.position, Position(20));
}

#[tokio::test]
async fn an_announcement_ends_a_post_and_no_other_and_leaves_a_copy() {
    let memory = listening();
    keep(&memory, ID, page(10, "a"));
    keep(&memory, OTHER, page(11, "b"));
    memory.inner.moments.end(ID, &[]);
    assert!(memory.fresh(ID).is_none());
    assert!(memory.fresh(OTHER).is_some());
    let copy = memory.stale_copy(ID).unwrap();
    assert_eq!((copy.freshness.stale, copy.freshness.source), (true, Source::Memory));
}

#[tokio::test]
async fn that_a_slug_names_nothing_is_believed_until_a_post_takes_it() {
    let memory = listening();
    let slug: Slug = "writing".parse().unwrap();
    let asked = AtomicU32::new(0);
    let ask = async |claim: Option<Claim>| {
        let read = || {
            asked.fetch_add(1, Ordering::Relaxed);
            async move { Ok(claim) }
        };
        memory.claim(&slug, read).await.unwrap()
    };
    assert_eq!(ask(None).await, Err(Source::Log));
    assert_eq!(ask(None).await, Err(Source::Memory));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    memory.inner.moments.end(ID, std::slice::from_ref(&slug));
    let claim = Claim { post_id: ID, position: Position(2) };
    assert_eq!((ask(Some(claim)).await, ask(None).await), (Ok(claim), Ok(claim)));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn absence_is_no_copy_to_fall_back_on_and_a_draft_is_not_kept() {
    let memory = listening();
    keep(&memory, ID, Post { sight: Sight::Nothing, ..page(10, "") });
    assert!(memory.fresh(ID).is_some());
    assert!(memory.stale_copy(ID).is_none());
    let mut draft = page(10, "draft");
    if let Sight::Page(page) = &mut draft.sight {
        page.is_draft = true;
    }
    keep(&memory, OTHER, draft);
    assert!(memory.stale_copy(OTHER).is_none());
}

#[tokio::test]
async fn while_nothing_is_heard_a_long_lifetime_is_a_second() {
    let memory = memory(64, 60_000);
    let second_ago = Instant::now() - Duration::from_secs(1);
    let moment = memory.inner.moments.of_post(ID);
    memory.keep(ID, Arc::new(page(10, "a")), moment, second_ago);
    assert!(memory.fresh(ID).is_none());
    memory.inner.moments.are_heard.store(true, Ordering::Relaxed);
    assert!(memory.fresh(ID).is_some());
}

#[tokio::test]
async fn many_who_miss_at_once_read_once() {
    let memory = listening();
    let reads = AtomicU32::new(0);
    let ask = || {
        memory.post(ID, || {
            reads.fetch_add(1, Ordering::Relaxed);
            async {
                tokio::task::yield_now().await;
                Ok(page(10, "a"))
            }
        })
    };
    assert!(join_all((0..100).map(|_| ask())).await.iter().all(Result::is_ok));
    assert_eq!(reads.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn memory_is_bounded_in_bytes_whatever_is_asked_for() {
    let memory = memory(1, 1000);
    let body = "x".repeat(10_000);
    for number in 0..1000 {
        keep(&memory, PostId(Uuid::from_u128(number)), page(10, &body));
    }
    for number in 0..20_000 {
        let slug = Slug::recorded(format!("nothing-{number}"));
        assert_eq!(memory.claim(&slug, || async { Ok(None) }).await.unwrap(), Err(Source::Log));
    }
    let cache = &memory.inner.cache;
    assert!(cache.weight() <= 1 << 20, "{}", cache.weight());
    assert!(cache.len() > 50, "{}", cache.len());
}

#[tokio::test]
async fn a_withdrawn_post_leaves_a_mark_instead_of_a_copy() {
    let memory = listening();
    keep(&memory, ID, page(10, "a"));
    keep(&memory, OTHER, page(11, "b"));
    let change = |visibility| Change { post_id: ID, visibility, slugs: vec![] };
    let at = |position| StorePosition { incarnation: 1, position: Position(position) };
    memory.hear(&change(Visibility::Withdrawn(at(12))));
    assert!(memory.fresh(ID).is_none() && memory.stale_copy(ID).is_none());
    assert!(memory.withdrawn().contains(ID));
    assert!(memory.fresh(OTHER).is_some());

    // What was read before is not put back, neither by a read that ends late nor by an older announcement.
    keep(&memory, ID, page(10, "a"));
    memory.hear(&change(Visibility::Published(at(10))));
    keep(&memory, ID, page(10, "a"));
    assert!(memory.fresh(ID).is_none() && memory.stale_copy(ID).is_none());

    memory.hear(&change(Visibility::Published(at(13))));
    keep(&memory, ID, page(13, "c"));
    assert!(memory.fresh(ID).is_some() && memory.stale_copy(ID).is_some());
}

#[tokio::test]
async fn copies_of_lists_are_without_the_posts_that_were_withdrawn_since() {
    let memory = listening();
    let cards = [(ID, Bytes::from("{\"a\":1}")), (OTHER, Bytes::from("{\"b\":2}"))];
    let freshness = Freshness::now(Position(10), Source::Redis, false);
    let list = |read_at| KeptList::new(&cards, Some("next".to_owned()), 1, freshness, read_at);
    memory.keep_list("all", Arc::new(list(Instant::now())));
    let (whole, freshness) = memory.list_copy("all").unwrap();
    assert_eq!(&whole.body[..], br#"{"items":[{"a":1},{"b":2}],"next":"next"}"#);
    assert!(freshness.stale);
    memory.withdrawn().note(ID, StorePosition { incarnation: 1, position: Position(12) });
    let (rest, _) = memory.list_copy("all").unwrap();
    assert_eq!(&rest.body[..], br#"{"items":[{"b":2}],"next":"next"}"#);
    assert_ne!(rest.etag, whole.etag);
    memory.keep_list("all", Arc::new(list(Instant::now() - Duration::from_secs(10))));
    assert!(memory.list_copy("all").is_none(), "it is too old");
}

#[tokio::test]
async fn a_copy_has_a_greatest_age() {
    let memory = listening();
    let moment = memory.inner.moments.of_post(ID);
    for (seconds, is_sent) in [(5, true), (10, false)] {
        let read_at = Instant::now() - Duration::from_secs(seconds);
        memory.keep(ID, Arc::new(page(10, "a")), moment, read_at);
        assert_eq!(memory.stale_copy(ID).is_some(), is_sent, "{seconds}");
    }
}

#[tokio::test]
async fn a_page_of_the_greatest_size_is_kept() {
    let memory = listening();
    keep(&memory, ID, page(10, &"\\u0001".repeat(262_144)));
    assert!(memory.fresh(ID).is_some());
}

/// Somebody who reads a post, and the answer they wait for.
async fn begin_to_read(
    memory: &PageCache,
) -> (JoinHandle<Result<Seen, ReadError>>, oneshot::Sender<Post>) {
    let (answer, read) = oneshot::channel();
    let (begun, has_begun) = oneshot::channel();
    let memory = memory.clone();
    let reading = tokio::spawn(async move {
        let read = async move {
            begun.send(()).unwrap();
            Ok(read.await.unwrap())
        };
        memory.post(ID, || read).await
    });
    has_begun.await.unwrap();
    (reading, answer)
}

fn listening() -> PageCache {
    let memory = memory(64, 60_000);
    memory.inner.moments.hear();
    memory
}

fn memory(mib: usize, lifetime_ms: u64) -> PageCache {
    let mut config = Config::parse_from([
        "query-service",
        "--database-url",
        "postgres://nowhere",
        "--redis-url",
        "redis://nowhere",
    ]);
    (config.memory_mib, config.memory_ms) = (mib, lifetime_ms);
    config.memory_stale_seconds = 10;
    let store = Store {
        incarnation: 1,
        partitions: Partitions::new(1).unwrap(),
        token_key: TokenKey([7; 32]),
    };
    PageCache::new(&config, Standing::new(store, &config), HeaderMap::new())
}

fn keep(memory: &PageCache, id: PostId, post: Post) {
    memory.keep(id, Arc::new(post), memory.inner.moments.of_post(id), Instant::now());
}

fn page(position: u64, body: &str) -> Post {
    let page = Page {
        slug: None,
        etag: axum::http::HeaderValue::from_static("\"x\""),
        body: Bytes::copy_from_slice(body.as_bytes()),
        is_draft: false,
    };
    let freshness = Freshness::now(Position(position), Source::Redis, false);
    Post {
        sight: Sight::Page(page),
        position: Position(position),
        incarnation: 1,
        freshness,
        begun: Instant::now(),
    }
}

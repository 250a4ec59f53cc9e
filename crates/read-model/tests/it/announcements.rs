//! Hearing of changes, and knowing when none can be heard.

use std::time::Duration;

use domain::{Claim, Partition, Partitions, Position};
use read_model::{Advance, Change, Guarded, Heard, KeySpace, StorePosition, Views, Visibility};
use testkit::{own_redis, shared};
use tokio::sync::mpsc;

use crate::ground;
use crate::support::{Post, Store, advance};

#[tokio::test]
async fn a_change_is_heard_with_its_slugs_by_either_protocol() {
    let store = Store::new().await;
    let url = &ground::url().await;
    let resp2 = url.split('?').next().unwrap();
    let (mut by_resp3, mut by_resp2) = (listen(url, &store.prefix), listen(resp2, &store.prefix));
    assert_eq!(by_resp3.recv().await, Some(Heard::Beginning));
    assert_eq!(by_resp2.recv().await, Some(Heard::Beginning));

    let post = Post::drafted(1).published(2);
    let slug: domain::Slug = "on-writing".parse().unwrap();
    let claim = Claim { post_id: post.id, position: Position(2) };
    let slugs = vec![(slug.clone(), claim)];
    let run = Advance { slugs, ..advance(Partition(0), 0, 2, vec![(post.id, post.row_at(2))]) };
    assert_eq!(store.advance(run).await, Guarded::Written);

    let at = StorePosition { incarnation: 1, position: Position(2) };
    let visibility = Visibility::Published(at);
    let change = Change { post_id: post.id, visibility, slugs: vec![slug] };
    let change = Some(Heard::Change(change));
    assert_eq!(by_resp3.recv().await, change);
    assert_eq!(by_resp2.recv().await, change);
}

#[tokio::test]
async fn a_change_says_whether_the_post_may_still_be_shown() {
    let store = Store::new().await;
    let mut heard = listen(&ground::url().await, &store.prefix);
    assert_eq!(heard.recv().await, Some(Heard::Beginning));
    let at = |position| StorePosition { incarnation: 1, position: Position(position) };
    let drafted = Post::drafted(1);
    let deleted = drafted.clone().published(2).deleted(3);
    for (row, position, visibility) in [
        (drafted.row_at(1), 1, Visibility::Unpublished(at(1))),
        (deleted.row_at(2), 2, Visibility::Published(at(2))),
        (deleted.row_at(3), 3, Visibility::Withdrawn(at(3))),
    ] {
        let run = advance(Partition(0), position - 1, position, vec![(deleted.id, row)]);
        assert_eq!(store.advance(run).await, Guarded::Written);
        let change = Change { post_id: deleted.id, visibility, slugs: vec![] };
        assert_eq!(heard.recv().await, Some(Heard::Change(change)));
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_or_stalls_is_known_as_such() {
    let (proxy, url) = shared().redis_proxy();
    let mut heard = listen(&url, "any");
    assert_eq!(heard.recv().await, Some(Heard::Beginning));
    proxy.stall();
    assert_eq!(heard.recv().await, None);

    let mut redis = own_redis().await;
    let mut heard = listen(&redis.url(), "any");
    assert_eq!(heard.recv().await, Some(Heard::Beginning));
    redis.kill().unwrap();
    assert_eq!(heard.recv().await, None);
}

/// What is heard on one connection.
fn listen(url: &str, prefix: &str) -> mpsc::UnboundedReceiver<Heard> {
    let (keys, partitions) = (KeySpace::new(prefix).unwrap(), Partitions::new(1).unwrap());
    let views = Views::new(url, keys, partitions, Duration::from_secs(10)).unwrap();
    let announcements = views.announcements();
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        announcements.hear(|news| drop(tell.send(news)), || {}).await;
    });
    heard
}

//! Calls whose answer is lost: everybody learns what became of their commit, and nothing is recorded twice.

use std::collections::{HashMap, HashSet};

use command_service::store::{Judged, Kept, Writer};
use domain::Position;
use reqwest::Method;
use serde_json::json;
use testkit::{Proxy, TestDatabase, Way, eventually, shared};
use tokio::task::JoinSet;

use crate::append::{
    claiming, commit, hold_the_lock, log, release_the_lock, start_writer_at, waiting_for_the_lock,
};
use crate::support::{new_database, start_through, told};

/// How many bytes lie between two points at which a call is broken.
const STEP: usize = 41;
const WRITERS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_broken_anywhere_is_answered_as_the_log_has_it() {
    let database = new_database().await;
    let mut sweeps = JoinSet::new();
    for (number, way) in (0..WRITERS).flat_map(|number| [(number, Way::Up), (number, Way::Down)]) {
        let (proxy, url) = shared().postgres_proxy(database.name());
        sweeps.spawn(sweep(format!("{way:?}-{number}").to_lowercase(), number, way, proxy, url));
    }
    let told: Vec<(String, Judged)> = sweeps.join_all().await.into_iter().flatten().collect();
    assert!(told.len() > 200, "only {} commits were made", told.len());
    holds_what_was_told(&database, told).await;
}

#[tokio::test]
async fn a_lost_call_that_runs_before_its_repetition_counts_once() {
    let database = new_database().await;
    let (proxy, url) = shared().postgres_proxy(database.name());
    let writer = start_writer_at(&url);
    let mut lock = hold_the_lock(&database).await;
    let mut watcher = database.connect().await;
    let append = tokio::spawn(async move { writer.append(claiming("stream", 0, "mine")).await });
    eventually("the call is there", async || waiting_for_the_lock(&mut watcher).await >= 1).await;
    proxy.cut();
    proxy.restore();
    eventually("so is its repetition", async || waiting_for_the_lock(&mut watcher).await >= 2)
        .await;
    release_the_lock(&mut lock).await;
    let judged = append.await.unwrap().unwrap();
    assert_eq!(judged, Judged::Recorded { version: 1, position: Position(1) });
    assert_eq!(log(&mut watcher).await.len(), 1);
}

#[tokio::test]
async fn a_lost_call_that_runs_after_its_repetition_records_nothing() {
    let database = new_database().await;
    let (proxy, url) = shared().postgres_proxy(database.name());
    let writer = start_writer_at(&url);
    let size = size_of_a_call(&writer, &proxy, Way::Up, "first").await;

    proxy.keep_back();
    let late = {
        let writer = writer.clone();
        tokio::spawn(async move { writer.append(claiming("later", 0, "mine-later")).await })
    };
    eventually("the call is kept back whole", async || proxy.kept_back() == size).await;
    proxy.lose_clients();
    let judged = late.await.unwrap().unwrap();
    assert_eq!(judged, Judged::Recorded { version: 1, position: Position(3) });
    // The stream has gone on when the call arrives at last.
    writer.append(commit("later", 1, 1)).await.unwrap();
    proxy.deliver();
    eventually("the lost call has run", async || proxy.kept_back() == 0).await;

    let next = writer.append(commit("later", 2, 1)).await.unwrap();
    assert_eq!(next, Judged::Recorded { version: 3, position: Position(5) });
    assert_eq!(log(&mut database.connect().await).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_call_was_lost_on_the_way_learns_what_became_of_it() {
    let database = new_database().await;
    let (proxy, url) = shared().postgres_proxy(database.name());
    let service = start_through(database, &url, &[]).await;
    let mut watcher = service.database().connect().await;
    let mut lock = hold_the_lock(service.database()).await;
    let body = json!({ "title": "On writing", "content": "Begin." });
    let request = service.anne(Method::POST, "/posts").json(&body);
    let answer = tokio::spawn(told(request.header("idempotency-key", "k-1")));
    eventually("the call is there", async || waiting_for_the_lock(&mut watcher).await >= 1).await;
    proxy.cut();
    proxy.restore();
    eventually("so is its repetition", async || waiting_for_the_lock(&mut watcher).await >= 2)
        .await;
    release_the_lock(&mut lock).await;
    let (status, post) = answer.await.unwrap();
    assert_eq!((status, &post["version"], &post["position"]), (201, &json!(2), &json!(2)));
    assert_eq!(log(&mut watcher).await.len(), 2);
}

/// Breaks the wire after more and more bytes of a call, and tells what became of each commit.
async fn sweep(
    name: String,
    number: usize,
    way: Way,
    proxy: Proxy,
    url: String,
) -> Vec<(String, Judged)> {
    let writer = start_writer_at(&url);
    let size = size_of_a_call(&writer, &proxy, way, &name).await;
    let mut told = vec![];
    let counter = format!("{name}-counter");
    // Together the sweeps try a point every STEP / WRITERS bytes, from before the call until well behind it.
    for (nth, bytes) in (number * STEP / WRITERS..2 * size).step_by(STEP).enumerate() {
        proxy.break_after(way, bytes);
        let fresh = format!("{name}-{nth}");
        let mut new = claiming(&fresh, 0, &fresh);
        new.kept = Some(Kept {
            author: "anne".parse().unwrap(),
            key: fresh.clone(),
            request_hash: [7; 32],
            answer: "{}".to_owned(),
        });
        // The first goes alone, the others behind it in one batch, and the break strikes one of the two.
        let (new, more, thief) = tokio::join!(
            writer.append(new),
            writer.append(commit(&counter, nth as u64, 1)),
            writer.append(claiming(&format!("{fresh}-thief"), 0, &format!("{name}-first"))),
        );
        assert_eq!(thief.unwrap(), Judged::SlugTaken, "after {bytes} bytes");
        told.push((fresh, new.unwrap()));
        let more = more.unwrap();
        let Judged::Recorded { version, .. } = more else {
            panic!("after {bytes} bytes: {more:?}")
        };
        assert_eq!(version, nth as u64 + 1, "after {bytes} bytes");
        told.push((counter.clone(), more));
    }
    told
}

/// How many bytes go that way for a commit with a slug, on a connection that has seen one before.
async fn size_of_a_call(writer: &Writer, proxy: &Proxy, way: Way, name: &str) -> usize {
    writer.append(claiming(&format!("{name}-begin"), 0, &format!("{name}-first"))).await.unwrap();
    let before = proxy.carried(way);
    writer.append(claiming(name, 0, &format!("mine-{name}"))).await.unwrap();
    proxy.carried(way) - before
}

/// Demands that the log holds each commit where its caller was told, and nothing else but the first ones.
async fn holds_what_was_told(database: &TestDatabase, told: Vec<(String, Judged)>) {
    let log = log(&mut database.connect().await).await;
    let positions: Vec<i64> = log.iter().map(|(position, ..)| *position).collect();
    assert_eq!(positions, (1..=log.len() as i64).collect::<Vec<_>>());
    let places: HashMap<(&str, i64), i64> =
        log.iter().map(|(position, id, sequence)| ((id.as_str(), *sequence), *position)).collect();
    let mut seen = HashSet::new();
    for (stream, judged) in &told {
        let Judged::Recorded { version, position } = judged else { panic!("{stream}: {judged:?}") };
        assert_eq!(places.get(&(stream, version.cast_signed())), Some(&position.to_i64()));
        assert!(seen.insert(position.0), "{position} was given twice");
    }
    assert_eq!(log.len(), told.len() + 2 * 2 * WRITERS);
}

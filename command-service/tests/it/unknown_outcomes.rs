//! Calls whose answer is lost: everybody learns what became of their commit, and nothing is recorded twice.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use command_service::store::{AppendError, Commit, Judged, Writer};
use domain::Position;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use testkit::{Proxy, TestDatabase, Way, eventually, eventually_some, shared};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::append::{
    claiming, commit, hold_the_lock, in_one_batch, kept, log, release_the_lock, start_writer,
    start_writer_at, waiting_for_the_lock, with_ids,
};
use crate::support::{new_database, start, start_through, start_with, told};

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
async fn a_commit_sent_by_two_calls_at_once_is_recorded_once() {
    let database = new_database().await;
    let mut lock = hold_the_lock(&database).await;
    let mut watcher = database.connect().await;
    // As if the server of the first call could not be asked to end it.
    let id = Uuid::now_v7();
    let calls = [start_writer(&database).await, start_writer(&database).await].map(|writer| {
        let commit = Commit { slug: Some("mine".parse().unwrap()), ..with_ids("stream", 0, [id]) };
        tokio::spawn(async move { writer.append(commit).await })
    });
    eventually("both are there", async || waiting_for_the_lock(&mut watcher).await == 2).await;
    release_the_lock(&mut lock).await;
    for call in calls {
        let judged = call.await.unwrap().unwrap();
        assert_eq!(judged, Judged::Recorded { version: 1, position: Position(1) });
    }
    assert_eq!(log(&mut watcher).await.len(), 1);
}

#[tokio::test]
async fn a_lost_call_is_ended_before_it_is_sent_again() {
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
    // Its backend had to end first, although its connection is whole.
    assert_eq!(backends(&mut database.connect().await).await, 1);
    proxy.deliver();
    eventually("the lost call has arrived", async || proxy.kept_back() == 0).await;

    let next = writer.append(commit("later", 1, 1)).await.unwrap();
    assert_eq!(next, Judged::Recorded { version: 2, position: Position(4) });
    assert_eq!(log(&mut database.connect().await).await.len(), 4);
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
    let lost = call_behind_the_lock(&mut watcher, 0).await;
    proxy.cut();
    proxy.restore();
    call_behind_the_lock(&mut watcher, lost).await;
    assert_eq!(waiting_for_the_lock(&mut watcher).await, 1);
    release_the_lock(&mut lock).await;
    let (status, post) = answer.await.unwrap();
    assert_eq!((status, &post["version"], &post["position"]), (201, &json!(2), &json!(2)));
    assert_eq!(log(&mut watcher).await.len(), 2);
}

#[tokio::test]
async fn a_commit_whose_backend_is_terminated_is_recorded_once() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    let mut watcher = database.connect().await;
    let mut lock = hold_the_lock(&database).await;
    let append = tokio::spawn(async move { writer.append(claiming("stream", 0, "mine")).await });
    let mut backend = 0;
    for _ in 0..3 {
        backend = call_behind_the_lock(&mut watcher, backend).await;
        sqlx::query("SELECT pg_terminate_backend($1)")
            .bind(backend)
            .execute(&mut watcher)
            .await
            .unwrap();
    }
    call_behind_the_lock(&mut watcher, backend).await;
    release_the_lock(&mut lock).await;
    let judged = append.await.unwrap().unwrap();
    assert_eq!(judged, Judged::Recorded { version: 1, position: Position(1) });
    assert_eq!(log(&mut watcher).await.len(), 1);
}

#[tokio::test]
async fn a_lock_held_for_a_minute_costs_at_most_two_backends() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    let mut watcher = database.connect().await;
    let mut holder = database.connect().await;
    let mut lock = holder.begin().await.unwrap();
    sqlx::query("LOCK TABLE events").execute(&mut *lock).await.unwrap();
    let append = tokio::spawn(async move { writer.append(commit("stream", 0, 1)).await });
    let (end, mut most) = (Instant::now() + Duration::from_secs(60), 0);
    while Instant::now() < end {
        most = most.max(backends(&mut watcher).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lock.rollback().await.unwrap();
    let judged = append.await.unwrap().unwrap();
    assert_eq!(judged, Judged::Recorded { version: 1, position: Position(1) });
    assert!((1..=2).contains(&most), "{most} backends at once");
}

#[tokio::test]
async fn a_call_that_does_not_end_leaves_nothing_behind_when_its_requester_gives_up() {
    let database = new_database().await;
    let writer = start_writer(&database).await;
    let mut watcher = database.connect().await;
    watcher.execute(SLOW_INSERTS).await.unwrap();
    let append = |seconds, stream: &str| {
        let (writer, commit) = (writer.clone(), commit(stream, 0, 1));
        let deadline = Instant::now() + Duration::from_secs(seconds);
        tokio::spawn(async move { writer.append_by(deadline, commit).await })
    };
    let first = append(12, "slow");
    eventually("the first is there", async || backends(&mut watcher).await == 1).await;
    // The second waits behind it, and is never sent.
    let second = append(3, "behind").await.unwrap();
    assert!(matches!(second, Err(AppendError::TooLate)), "{second:?}");
    let first = first.await.unwrap();
    assert!(matches!(first, Err(AppendError::OutcomeUnknown)), "{first:?}");
    let judged = append(60, "next").await.unwrap().unwrap();
    assert!(matches!(judged, Judged::Recorded { position: Position(1), .. }), "{judged:?}");
    eventually("the lost call has ended", async || backends(&mut watcher).await == 1).await;
    assert_eq!(log(&mut watcher).await.len(), 1);
}

#[tokio::test]
async fn a_batch_that_is_cancelled_twice_is_halved_down_to_the_commit_that_fails() {
    let database = new_database().await;
    let mut watcher = database.connect().await;
    watcher.execute(SLOW_INSERTS).await.unwrap();
    set_default(&database, "statement_timeout = '1s'").await;
    let writer = start_writer(&database).await;
    let batch = [commit("a", 0, 1), commit("b", 0, 1), commit("slow", 0, 1), commit("d", 0, 1)];
    let [a, b, slow, d] = in_one_batch(&database, &writer, batch).await;
    for judged in [a, b, d] {
        assert!(matches!(judged, Ok(Judged::Recorded { .. })), "{judged:?}");
    }
    assert!(matches!(slow, Err(AppendError::Cancelled(_))), "{slow:?}");
    assert_eq!(log(&mut watcher).await.len(), 3);
}

#[tokio::test]
async fn a_commit_for_a_read_only_server_is_certainly_not_recorded() {
    let database = new_database().await;
    set_default(&database, "default_transaction_read_only = on").await;
    let writer = start_writer(&database).await;
    let deadline = Instant::now() + Duration::from_millis(1500);
    let late = writer.append_by(deadline, commit("late", 0, 1)).await;
    // Its last call may have been on its way at that moment, and only then the outcome is unknown.
    assert!(matches!(late, Err(AppendError::TooLate | AppendError::OutcomeUnknown)), "{late:?}");
    let next = {
        let writer = writer.clone();
        tokio::spawn(async move { writer.append(commit("next", 0, 1)).await })
    };
    set_default(&database, "default_transaction_read_only = off").await;
    let judged = next.await.unwrap().unwrap();
    assert_eq!(judged, Judged::Recorded { version: 1, position: Position(1) });
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_the_database_do_not_weaken_the_append() {
    let database = new_database().await;
    set_default(&database, "default_transaction_isolation = 'repeatable read'").await;
    set_default(&database, "synchronous_commit = off").await;
    let mut watcher = database.connect().await;
    watcher.execute(REFUSE_WEAK_COMMITS).await.unwrap();
    let processes = [start_writer(&database).await, start_writer(&database).await];
    let mut appends = JoinSet::new();
    for number in 0..160 {
        let writer = processes[number % 2].clone();
        appends.spawn(async move { writer.append(commit(&format!("{number}"), 0, 1)).await });
    }
    for judged in appends.join_all().await {
        assert!(matches!(judged, Ok(Judged::Recorded { .. })), "{judged:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_understood_ends_the_process() {
    let service = start().await;
    service.database().connect().await.execute(STRANGE_APPEND).await.unwrap();
    let body = json!({ "title": "On writing", "content": "Begin." });
    let answer = service.anne(Method::POST, "/posts").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 504);
    let error = format!("{:#}", service.stop().await.unwrap_err());
    assert!(error.contains("writer") && error.contains("nonsense"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_told_whether_its_command_may_have_been_recorded() {
    let service = start_with(new_database().await, &["--request-seconds=2"]).await;
    let mut watcher = service.database().connect().await;
    let post = |title: &str| {
        let body = json!({ "title": title, "content": "Begin." });
        service.anne(Method::POST, "/posts").json(&body)
    };
    let mut was_any_sent_late = false;
    for key in [None, Some("k-1")] {
        let mut lock = hold_the_lock(service.database()).await;
        let request = key
            .into_iter()
            .fold(post("Sent"), |request, key| request.header("idempotency-key", key));
        let sent = tokio::spawn(request.send());
        let backend = call_behind_the_lock(&mut watcher, 0).await;
        let queued = post("Queued").send().await.unwrap();
        if queued.status() == 504 {
            // The machine stood still until the call before it had ended, so it was sent.
            was_any_sent_late = true;
        } else {
            assert_eq!(queued.headers()["retry-after"], "2");
            assert_eq!(answer(queued).await, (503, json!("unavailable")));
        }
        let sent = sent.await.unwrap().unwrap();
        assert_eq!(sent.headers().get("retry-after").is_some(), key.is_some());
        assert_eq!(answer(sent).await, (504, json!("outcome_unknown")));
        release_the_lock(&mut lock).await;
        eventually("the call has ended", async || !is_active(&mut watcher, backend).await).await;
    }
    // What was queued is not recorded; what was sent may be. With its key it is answered now.
    let slugs: Vec<String> = sqlx::query_scalar("SELECT slug FROM slugs ORDER BY slug")
        .fetch_all(&mut watcher)
        .await
        .unwrap();
    let is_sent = |slug: &String| slug.starts_with("sent");
    assert!(was_any_sent_late || slugs.iter().all(is_sent), "{slugs:?}");
    let again = post("Sent").header("idempotency-key", "k-1").send().await.unwrap();
    assert_eq!(again.status(), 201);
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    (status, response.json::<Value>().await.unwrap()["code"].take())
}

/// Waits until a call other than that of the backend `before` waits for the lock, and returns its backend.
async fn call_behind_the_lock(watcher: &mut PgConnection, before: i32) -> i32 {
    eventually_some("the call is there", async || {
        sqlx::query_scalar(
            "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
             WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()
               AND pid <> $1",
        )
        .bind(before)
        .fetch_optional(&mut *watcher)
        .await
        .unwrap()
    })
    .await
}

async fn is_active(watcher: &mut PgConnection, backend: i32) -> bool {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')",
    )
    .bind(backend)
    .fetch_one(watcher)
    .await
    .unwrap()
}

/// How many backends of the writer there are.
async fn backends(watcher: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
           AND (query LIKE '%append_events(%' OR application_name = 'command-service writer')",
    )
    .fetch_one(watcher)
    .await
    .unwrap()
}

/// Changes a setting for those who connect to the database from now on.
async fn set_default(database: &TestDatabase, setting: &str) {
    let statement = format!("ALTER DATABASE \"{}\" SET {setting}", database.name());
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    connection.execute("SET default_transaction_read_only = off").await.unwrap();
    connection.execute(statement.as_str()).await.unwrap();
}

/// As long as it is there, a call does not end that records an event of the stream `slow`.
const SLOW_INSERTS: &str = "
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.aggregate_id = 'slow' THEN
            PERFORM pg_sleep(600);
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER slow_inserts BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION be_slow()";

/// As long as it is there, no event is recorded by a commit that a crash could lose.
const REFUSE_WEAK_COMMITS: &str = "
    CREATE FUNCTION refuse_weak_commits() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF current_setting('synchronous_commit') <> 'on' THEN
            RAISE 'synchronous_commit is %', current_setting('synchronous_commit');
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse_weak_commits BEFORE INSERT ON events
    FOR EACH ROW EXECUTE FUNCTION refuse_weak_commits()";

/// Has the append answer what this program does not know.
const STRANGE_APPEND: &str = "
    ALTER FUNCTION append_events RENAME TO real_append_events;
    CREATE FUNCTION append_events(
        text[], text[], bigint[], text[], integer[], uuid[], text[], text[], bytea[], text[],
        integer[], text[], text[], bigint[], integer[], uuid[], text[], text[], text[], text[]
    )
    RETURNS TABLE (outcome text, version bigint, \"position\" bigint, hash bytea, answer text)
    LANGUAGE sql AS $$ SELECT 'nonsense', 1, 1, NULL::bytea, NULL $$";

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
        new.kept = Some(kept(&fresh));
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

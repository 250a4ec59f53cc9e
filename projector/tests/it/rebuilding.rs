//! Views made anew beside the live ones: nothing is lost by it, whatever happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::{Partition, Position, PostId};
use event_log::{GenerationState, Generations};
use read_model::{FIRST_GENERATION, VIEW_VERSION};
use redis::AsyncCommands as _;
use testkit::{Signal, eventually, eventually_within, shared};

use crate::support::{Blog, LIMIT, SLOWLY};

#[tokio::test]
async fn a_rebuild_makes_what_the_log_makes_and_the_way_back_loses_nothing() {
    let mut blog = Blog::new().await;
    let ids = a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;

    blog.rebuild().await;
    assert_eq!(blog.views.generation(), 2);
    blog.views_agree_with_the_log().await;
    let kept = blog.generation(GenerationState::Kept).await.unwrap();
    assert_eq!(kept.number, 1);
    eventually("Redis says so, too", async || {
        matches!(blog.views.active_generation().await, Ok(Some((2, 2))))
    })
    .await;

    // What is written now is in the old generation too.
    blog.revise(ids[3], "Since the switch").await;
    blog.delete(ids[4]).await;
    blog.views_agree_with_the_log().await;
    eventually_within(LIMIT, "the way back is open", async || {
        blog.tool(&["rollback"]).ends().await.0
    })
    .await;
    blog.follow_active().await;
    assert_eq!(blog.views.generation(), 1);
    blog.views_agree_with_the_log().await;

    let table = blog.tool(&["generations"]).succeeds().await;
    let states: Vec<&str> =
        table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(states, ["active", "kept"], "{table}");
    projector.stop().await;
}

#[tokio::test]
async fn of_two_that_begin_the_first_generation_at_once_none_skips_its_number() {
    let blog = Blog::new().await;
    // Whoever has been given the first number is held up before it is written.
    let hold = "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN
                    IF NEW.number = 1 THEN PERFORM pg_advisory_xact_lock(1); END IF;
                    RETURN NEW;
                END $$;
                CREATE TRIGGER hold BEFORE INSERT ON generations FOR EACH ROW EXECUTE FUNCTION hold()";
    sqlx::raw_sql(hold).execute(&blog.pool).await.unwrap();
    let mut held = blog.pool.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *held).await.unwrap();

    let generations = Generations::new(blog.pool.clone());
    let both = tokio::spawn({
        let generations = generations.clone();
        async move {
            tokio::join!(
                generations.begin_first(VIEW_VERSION),
                generations.begin_first(VIEW_VERSION)
            )
        }
    });
    eventually("both of them wait", async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database =
                       (SELECT oid FROM pg_database WHERE datname = current_database())";
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&blog.pool).await.unwrap() == 2
    })
    .await;
    held.commit().await.unwrap();
    let (first, second) = both.await.unwrap();
    first.and(second).unwrap();
    let active = generations.active(VIEW_VERSION).await.unwrap();
    assert_eq!(active, Some((FIRST_GENERATION, 1)));
}

#[tokio::test]
async fn the_way_back_leads_to_all_that_was_written_even_if_no_projector_runs() {
    let mut blog = Blog::new().await;
    let ids = a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    blog.rebuild().await;
    projector.stop().await;
    for id in &ids[2..40] {
        blog.revise(*id, "While nobody projects").await;
    }
    let said = blog.tool(&["rollback"]).succeeds().await;
    assert!(said.contains("back to generation 1 in"), "{said}");
    blog.follow_active().await;
    assert_eq!(blog.views.generation(), 1);
    blog.views_agree_with_the_log().await;
}

#[tokio::test]
async fn a_rebuild_that_is_killed_at_every_stage_is_gone_on_with() {
    let mut blog = Blog::new().await;
    a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;

    let mut before = 0;
    for _ in 0..2 {
        let mut rebuild = blog.tool(&SLOWLY);
        blog.has_written_parts(before + 3).await;
        // Lest it go on while it is looked at.
        rebuild.signal(Signal::Stop);
        eventually("every projector tells of it", async || {
            let told = blog.generation(GenerationState::Building).await.unwrap();
            let said = projector.metrics().await;
            said.contains(&format!("\nprojector_rebuild_parts_done {}\n", told.parts_done))
        })
        .await;
        rebuild.kill();
        let killed = blog.generation(GenerationState::Building).await.unwrap();
        assert!(killed.parts_done > before && killed.parts_done < killed.parts, "{killed:?}");
        before = killed.parts_done;
        // Life goes on.
        let id = blog.publish_in(Partition(1)).await;
        blog.revise(id, "While nobody rebuilds").await;
    }
    // Verifying takes it long enough to be killed at that.
    let rebuild = blog.tool(&["rebuild", "--rebuild-share=100", "--rebuild-verify-pages=1000000"]);
    blog.has_built().await;
    rebuild.kill();
    let said = blog.tool(&["rebuild"]).succeeds().await;
    assert!(said.contains("Going on with generation 2"), "{said}");
    blog.follow_active().await;
    let built = blog.generation(GenerationState::Active).await.unwrap();
    assert_eq!((built.parts_done, built.events_done), (built.parts, built.head.0));
    assert_eq!(blog.views.generation(), 2);
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

#[tokio::test]
async fn a_builder_that_sleeps_past_its_lease_and_wakes_does_no_harm() {
    let mut blog = Blog::new().await;
    let ids = a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    let mut sleeper = blog.tool(&SLOWLY);
    blog.has_written_parts(3).await;
    sleeper.signal(Signal::Stop);
    let said = blog.rebuild().await;
    assert!(said.contains("Going on with generation 2"), "{said}");
    blog.revise(ids[3], "Since the switch").await;
    blog.views_agree_with_the_log().await;
    sleeper.signal(Signal::Continue);
    let said = sleeper.fails().await;
    assert!(said.contains("generation 2 is not finished"), "{said}");
    let all = blog.generations().all().await.unwrap();
    let of_each: Vec<_> = all.iter().map(|one| (one.number, one.state, one.turn)).collect();
    assert_eq!(of_each, [(1, GenerationState::Kept, 1), (2, GenerationState::Active, 2)]);
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

#[tokio::test]
async fn the_second_of_two_rebuilds_says_who_builds() {
    let blog = Blog::new().await;
    a_history(&blog).await;
    let first = blog.tool(&["rebuild", "--rebuild-part-events=2", "--rebuild-share=1"]);
    eventually("it has begun", async || blog.generation(GenerationState::Building).await.is_some())
        .await;
    let holder = blog.generation(GenerationState::Building).await.unwrap().holder.unwrap();
    let said = blog.tool(&["rebuild"]).fails().await;
    assert!(said.contains(&format!("generation 1 is being built by {holder}")), "{said}");
    first.kill();
}

#[tokio::test]
async fn a_rebuild_that_waited_for_another_to_end_does_not_begin_one_more() {
    let blog = Blog::new().await;
    a_history(&blog).await;
    let generations = blog.generations();
    let plan = (blog.log.head().await.unwrap(), 1);
    let begun = generations.begin(VIEW_VERSION, false, plan, "somebody", Duration::from_mins(1));
    let lease = begun.await.unwrap().unwrap();
    assert!(generations.follow(&lease).await.unwrap());
    let second = blog.tool(&["rebuild"]);
    second.says("waiting for another builder", 1).await;
    assert!(generations.switch(&lease, 1).await.unwrap());
    let said = second.fails().await;
    assert!(said.contains("generation 1 has just been built by somebody"), "{said}");
    assert_eq!(generations.all().await.unwrap().len(), 1);
}

#[tokio::test]
async fn writes_deletions_and_slug_moves_go_on_through_a_rebuild_and_its_switch() {
    let mut blog = Blog::new().await;
    let ids = a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.has_begun().await;
    let rebuild = blog.tool(&["rebuild", "--rebuild-part-events=10", "--rebuild-share=20"]);
    let over = Arc::new(AtomicBool::new(false));
    let write = async {
        let mut round = 0;
        while !over.load(Ordering::Relaxed) {
            write_something(&blog, &ids, round).await;
            round += 1;
        }
    };
    let end = async {
        let said = rebuild.succeeds().await;
        over.store(true, Ordering::Relaxed);
        said
    };
    let ((), said) = tokio::join!(write, end);
    assert!(said.contains("is active"), "{said}");
    for generation in [2, 1] {
        blog.views = blog.views.of_generation(generation);
        blog.views_agree_with_the_log().await;
    }
    projector.stop().await;
}

#[tokio::test]
async fn a_rebuild_outlives_a_redis_that_goes_away_and_one_that_forgets() {
    let mut blog = Blog::new().await;
    a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    let (proxy, redis_url) = shared().redis_proxy();
    let rebuild = blog.tool_on(&redis_url, &SLOWLY);
    blog.has_written_parts(3).await;
    proxy.cut();
    tokio::task::yield_now().await;
    proxy.restore();
    blog.has_written_parts(8).await;
    // One of the partitions of the new generation is lost, and all that it held.
    let new = blog.views.of_generation(2);
    let old = std::mem::replace(&mut blog.views, new);
    blog.forget(&blog.key(Partition(2), "*"), None).await;
    blog.views = old;
    let said = rebuild.succeeds().await;
    assert!(said.contains("Redis has lost a part of generation 2"), "{said}");
    blog.follow_active().await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

#[tokio::test]
async fn a_rebuild_waits_for_redis_at_every_stage() {
    let mut blog = Blog::new().await;
    a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    let (proxy, redis_url) = shared().redis_proxy();
    proxy.cut();
    // Verifying takes it long enough to be disturbed at that.
    let rebuild = blog.tool_on(
        &redis_url,
        &[
            "rebuild",
            "--rebuild-share=100",
            "--rebuild-part-events=1",
            "--rebuild-verify-pages=50000",
        ],
    );
    rebuild.says("Generation 2 waits", 1).await;
    proxy.restore();
    blog.has_built().await;
    proxy.cut();
    let before = rebuild.said().matches("Generation 2 waits").count();
    rebuild.says("Generation 2 waits", before + 1).await;
    proxy.restore();
    let said = rebuild.succeeds().await;
    let built = blog.generation(GenerationState::Active).await.unwrap();
    let head = built.head;
    assert!(said.contains(&format!("Generation 2 is active: {head} events in")), "{said}");
    assert_eq!((built.parts_done, built.events_done), (built.parts, head.0));
    blog.follow_active().await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
}

#[tokio::test]
async fn what_redis_forgets_in_the_midst_of_a_part_is_written_again() {
    let mut blog = Blog::new().await;
    a_history(&blog).await;
    // The whole log is one part, and each page a batch.
    let rebuild = blog.tool(&[
        "rebuild",
        "--rebuild-lanes=1",
        "--rebuild-batch-pages=1",
        "--rebuild-share=2",
        "--rebuild-verify-pages=10",
    ]);
    let redis = blog.redis().await.unwrap();
    let mark = blog.key(Partition(0), "watermark");
    eventually_within(LIMIT, "some batches are there", async || {
        let last: Option<String> = redis.clone().hget(&mark, "part:0").await.unwrap();
        last.is_some_and(|last| !last.ends_with(" 1"))
    })
    .await;
    // As a replica that had not heard of them when it took over.
    blog.forget(&blog.key(Partition(0), "*"), Some((&mark, "part:0"))).await;
    let said = rebuild.succeeds().await;
    assert!(said.contains("Redis has lost a part of generation 1"), "{said}");
    blog.follow_active().await;
    blog.views_agree_with_the_log().await;

    let said = blog.tool(&["rebuild", "--rebuild-batch-pages=2"]).succeeds().await;
    assert!(!said.contains("has lost"), "{said}");
}

#[tokio::test]
async fn generations_are_listed_while_redis_is_away() {
    let blog = Blog::new().await;
    let projector = blog.project().await;
    blog.has_begun().await;
    projector.stop().await;
    let table = blog.tool_on("redis://127.0.0.1:1", &["generations"]).succeeds().await;
    let words: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[2..7], ["active", "?", "?", "?", "?"], "{table}");
    assert!(table.contains("its views do not answer"), "{table}");
}

#[tokio::test]
async fn an_old_generation_is_removed_and_the_others_are_not() {
    let mut blog = Blog::new().await;
    let ids = a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    let first = blog.key(Partition(0), "");
    blog.rebuild().await;
    blog.rebuild().await;
    assert_eq!(blog.views.generation(), 3);
    eventually_within(LIMIT, "the first generation is gone", async || {
        blog.generations().all().await.unwrap().len() == 2
    })
    .await;
    let first = first.replace(":0}:", ":*");
    let left: Vec<String> = blog.redis().await.unwrap().keys(&first).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    blog.revise(ids[2], "Still here").await;
    for generation in [3, 2] {
        blog.views = blog.views.of_generation(generation);
        blog.views_agree_with_the_log().await;
    }
    projector.stop().await;
}

#[tokio::test]
async fn nobody_begins_anew_what_was_given_up_before_they_heard_of_it() {
    let mut blog = Blog::new().await;
    a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    let first = blog.key(Partition(0), "").replace(":0}:", ":*");
    blog.rebuild().await;
    let head = blog.log.head().await.unwrap();
    blog.publish_in_all(1).await;
    // As after a removal that the projector has slept through.
    let give_up = "UPDATE generations
                   SET state = 'abandoned', changed_at = clock_timestamp() + interval '1 hour'
                   WHERE number = 1";
    sqlx::query(give_up).execute(&blog.pool).await.unwrap();
    blog.forget(&first, None).await;
    blog.relay_after(head).await;
    blog.views_agree_with_the_log().await;
    let left: Vec<String> = blog.redis().await.unwrap().keys(&first).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    projector.stop().await;
}

#[tokio::test]
async fn a_program_with_another_version_of_the_views_builds_its_own_and_leaves_the_others_alone() {
    let mut blog = of_the_version_before().await;
    let before = blog.epochs().await;

    let projector = blog.project_impatiently().await;
    eventually_within(LIMIT, "a generation of the new version is active", async || {
        projector.unready("generation").await.is_none()
    })
    .await;
    assert_eq!(blog.epochs().await, before);
    let all = blog.generations().all().await.unwrap();
    assert!(all.iter().all(|generation| generation.state == GenerationState::Active), "{all:?}");
    blog.views = blog.views.of_generation(2);
    let id = blog.publish_in(Partition(3)).await;
    blog.views_agree_with_the_log().await;
    // The one of the version before is left where it was, for the program that it belongs to.
    assert!(blog.views.of_generation(1).row(id).await.unwrap().row.is_none());
    let said = blog.tool(&["abandon", "1"]).fails().await;
    assert!(said.contains("generation 1 is active"), "{said}");
    blog.tool(&["abandon", "2", "--force"]).fails().await;
    blog.tool(&["abandon", "1", "--force"]).succeeds().await;
    projector.stop().await;
}

#[tokio::test]
async fn of_two_projectors_of_a_new_version_one_builds_and_switches_once() {
    let blog = of_the_version_before().await;
    let (one, other) = tokio::join!(blog.project_impatiently(), blog.project_impatiently());
    for projector in [&one, &other] {
        eventually_within(LIMIT, "it is content", async || {
            projector.unready("generation").await.is_none()
        })
        .await;
    }
    let all = blog.generations().all().await.unwrap();
    let of_each: Vec<_> = all.iter().map(|one| (one.state, one.turn)).collect();
    assert_eq!(of_each, [(GenerationState::Active, 1), (GenerationState::Active, 2)], "{all:?}");
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_page_that_cannot_be_folded_is_set_aside_and_the_rest_is_rebuilt() {
    let mut blog = Blog::new().await;
    let ids = a_history(&blog).await;
    let bad = blog.record_unreadable(ids[6]).await;
    blog.revise(ids[6], "Behind it").await;
    blog.revise(ids[7], "Beside it").await;
    let projector = blog.project_impatiently().await;
    blog.has_begun().await;
    let said = blog.rebuild().await;
    let named = format!("Post {} is set aside from position {bad} on", ids[6]);
    assert!(said.contains(&named), "{said}");
    assert_eq!(blog.views.generation(), 2);
    let found = blog.views.row(ids[6]).await.unwrap();
    assert_eq!(found.quarantined, Some(bad));
    let row = found.row.unwrap();
    assert!(row.position < bad, "{row:?}");
    assert_eq!(blog.log.count_quarantined().await.unwrap(), 1);
    let said = blog.tool(&["verify"]).succeeds().await;
    assert!(said.contains(" 0 differences, 1 pages set aside"), "{said}");
    projector.stop().await;
}

#[tokio::test]
async fn only_who_has_the_right_to_build_a_generation_switches_to_it() {
    let blog = Blog::new().await;
    let (generations, long) = (blog.generations(), Duration::from_secs(60));
    let begun = generations.begin(VIEW_VERSION, false, (Position::ZERO, 1), "one", long).await;
    let lost = begun.unwrap().unwrap();
    assert!(!generations.switch(&lost, 1).await.unwrap(), "it is still being built");
    assert!(generations.follow(&lost).await.unwrap());
    generations.give_back(&lost).await.unwrap();
    let taken = generations.take(lost.number, "another", long).await.unwrap().unwrap();
    assert!(!generations.switch(&lost, 1).await.unwrap(), "another has it");
    assert!(!generations.switch_back(lost.number, 1).await.unwrap(), "it never was active");
    assert!(generations.switch(&taken, 1).await.unwrap());
    assert!(!generations.switch(&taken, 1).await.unwrap(), "it is over");
    generations.give_back(&taken).await.unwrap();
    assert!(generations.take(taken.number, "a third", long).await.unwrap().is_none());
}

#[tokio::test]
async fn a_page_is_shown_as_it_was() {
    let blog = Blog::new().await;
    let id = blog.publish_in(Partition(0)).await;
    let position = blog.log.head().await.unwrap();
    blog.revise(id, "Later").await;
    blog.delete(id).await;
    let show = async |at: &[&str]| {
        let id = id.to_string();
        let words = [&["show", id.as_str()], at].concat();
        serde_json::from_str::<serde_json::Value>(&blog.tool(&words).succeeds().await).unwrap()
    };
    let then = show(&["--at", &position.to_string()]).await;
    assert_eq!(
        (&then["page"]["title"], &then["state"]),
        (&"On writing".into(), &"published".into())
    );
    assert_eq!(show(&["--at", &(position.0 + 1).to_string()]).await["page"]["title"], "Later");
    assert_eq!(show(&["--at", "2026-01-01T00:00:00Z"]).await["state"], "not written yet");
    assert_eq!(show(&[]).await["state"], "deleted");
}

/// With views by the program before this one, as far as anybody can tell.
async fn of_the_version_before() -> Blog {
    let blog = Blog::new().await;
    a_history(&blog).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
    sqlx::query("UPDATE generations SET view_version = view_version - 1")
        .execute(&blog.pool)
        .await
        .unwrap();
    blog
}

/// Some posts with some past, in every partition.
async fn a_history(blog: &Blog) -> Vec<PostId> {
    let ids = blog.publish_in_all(25).await;
    for id in &ids[..20] {
        blog.revise(*id, "On reading").await;
    }
    blog.unpublish(ids[0]).await;
    blog.delete(ids[1]).await;
    ids
}

async fn write_something(blog: &Blog, ids: &[PostId], round: usize) {
    let id = ids[2 + round % (ids.len() - 2)];
    match round % 3 {
        0 => {
            blog.revise(id, &format!("Round {round}")).await;
        }
        1 => {
            let new = blog.publish_in(Partition(u16::try_from(round % 4).unwrap())).await;
            let slug = format!("moved-{round}-{}", new.random_digits());
            let moved =
                serde_json::json!({"revised": {"changes": {"title": "Moved"}, "slug": slug}});
            blog.record(new, moved).await;
            if round.is_multiple_of(2) {
                blog.delete(new).await;
            }
        }
        _ => {
            let new = blog.publish_in(Partition(1)).await;
            blog.unpublish(new).await;
        }
    }
}

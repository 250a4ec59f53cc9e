//! What is wrong in Redis is found, named and mended; what is only on its way, or has expired, is not wrong.

use std::sync::atomic::{AtomicBool, Ordering};

use domain::{Partition, PostId};
use redis::AsyncCommands as _;

use crate::support::Blog;

const P: Partition = Partition(1);

#[tokio::test]
async fn a_corrupted_row_is_found_and_mended() {
    let blog = written().await;
    let id = blog.ids[3];
    let key = blog.key(blog.views.partition_of(id), &format!("post:{id}"));
    for (field, value) in [
        ("content", "\"Other.\""),
        ("html", "<p>Other.</p>"),
        ("position", "99999999"),
        ("position", "no number"),
        ("created", "no time"),
        ("state", "draft"),
    ] {
        blog.redis().await.unwrap().hset::<_, _, _, ()>(&key, field, value).await.unwrap();
        finds_and_mends(&blog, &[&key, field, value]).await;
    }
}

#[tokio::test]
async fn a_page_that_is_set_aside_for_nothing_is_found_and_mended() {
    let blog = written().await;
    let id = blog.ids[3];
    let key = blog.key(blog.views.partition_of(id), "quarantined");
    blog.redis().await.unwrap().hset::<_, _, _, ()>(&key, id.to_string(), 3).await.unwrap();
    finds_and_mends(&blog, &[&key, &id.to_string(), "`3` in Redis", "nothing by the log"]).await;
}

#[tokio::test]
async fn a_sample_is_mended_too() {
    let blog = written().await;
    let id = blog.ids[3];
    let key = blog.key(blog.views.partition_of(id), &format!("post:{id}"));
    blog.redis().await.unwrap().hset::<_, _, _, ()>(&key, "state", "draft").await.unwrap();
    // Chance leaves out one page of so few no more often than once in a trillion times.
    let sample = "--sample=5000";
    let said = blog.tool(&["verify", sample, "--repair"]).fails().await;
    assert!(said.contains("1 repaired"), "{said}");
    let said = blog.tool(&["verify", sample]).succeeds().await;
    assert!(said.contains(" 0 differences"), "{said}");
}

#[tokio::test]
async fn a_list_entry_that_is_gone_is_found_and_mended() {
    let blog = written().await;
    let list = blog.key(P, "list:published");
    let mut redis = blog.redis().await.unwrap();
    let place: Vec<String> = redis.zrange(&list, 0, 0).await.unwrap();
    redis.zrem::<_, _, ()>(&list, &place[0]).await.unwrap();
    finds_and_mends(&blog, &[&list, &place[0], "nothing in Redis"]).await;
}

#[tokio::test]
async fn a_list_in_the_wrong_order_is_found_and_mended() {
    let blog = written().await;
    let list = blog.key(P, "list:tag:craft");
    let mut redis = blog.redis().await.unwrap();
    let place: Vec<String> = redis.zrange(&list, 0, 0).await.unwrap();
    redis.zadd::<_, _, _, ()>(&list, &place[0], 7).await.unwrap();
    finds_and_mends(&blog, &[&list, &place[0], "at 7"]).await;
}

#[tokio::test]
async fn an_entry_of_no_post_and_a_lost_tombstone_are_found_and_mended() {
    let blog = written().await;
    let list = blog.key(P, "list:published");
    let mut redis = blog.redis().await.unwrap();
    let place = format!("{:016x}:{}", 12, blog.ids[0]);
    redis.zadd::<_, _, _, ()>(&list, &place, 0).await.unwrap();
    finds_and_mends(&blog, &[&list, &place, "nothing by the log"]).await;

    let deleted = blog.ids[1];
    blog.evict(deleted).await;
    finds_and_mends(&blog, &[&format!("post:{deleted}"), "deleted"]).await;
}

#[tokio::test]
async fn a_post_that_the_log_has_never_heard_of_is_found_and_taken_out() {
    let blog = written().await;
    let phantom = blog.id_in(P);
    let place = format!("{:016x}:{phantom}", 12);
    let mut redis = blog.redis().await.unwrap();
    let epoch = blog.watermark(P).await.epoch;
    redis::pipe()
        .zadd(blog.key(P, "list:published"), &place, 0)
        .hset(blog.key(P, "listed"), phantom.to_string(), format!("5\npublished\t{place}\n"))
        .hset(blog.key(P, &format!("post:{phantom}")), "epoch", epoch)
        .exec_async(&mut redis)
        .await
        .unwrap();
    finds_and_mends(&blog, &[&phantom.to_string(), "a post", "nothing by the log"]).await;
}

#[tokio::test]
async fn what_has_expired_or_is_on_its_way_is_no_difference() {
    let blog = written().await;
    blog.evict(blog.ids[5]).await;
    let projector = blog.project_impatiently().await;
    let over = AtomicBool::new(false);
    let write = async {
        for round in 0.. {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let id = blog.ids[2 + round % 20];
            match round % 2 {
                0 => blog.revise(id, &format!("Round {round}")).await,
                _ => blog.unpublish(id).await,
            };
        }
    };
    let verify = async {
        for _ in 0..3 {
            let said = blog.tool(&["verify"]).succeeds().await;
            assert!(said.contains(" 0 differences"), "{said}");
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(write, verify);
    let said = blog.tool(&["verify", "--sample=50"]).succeeds().await;
    assert!(said.contains(" 0 differences"), "{said}");
    projector.stop().await;
}

#[tokio::test]
async fn a_generation_that_is_not_followed_by_this_version_is_refused() {
    let blog = written().await;
    let refused = async |generation: &str, why: &str| {
        let said = blog.tool(&["verify", "--generation", generation, "--repair"]).fails().await;
        assert!(said.contains(why), "{said}");
    };
    refused("7", "there is no generation 7").await;
    for (change, why) in [
        ("state = 'building'", "it is building"),
        ("state = 'abandoned'", "it is abandoned"),
        ("state = 'kept', view_version = view_version + 1", "another version"),
    ] {
        sqlx::query(&format!("UPDATE generations SET {change}")).execute(&blog.pool).await.unwrap();
        refused("1", why).await;
    }
}

#[tokio::test]
async fn a_partition_without_a_watermark_of_this_version_does_not_pass() {
    let blog = written().await;
    let mark = blog.key(P, "watermark");
    let mut redis = blog.redis().await.unwrap();
    let damages =
        [redis::cmd("HSET").arg(&mark).arg(&["epoch", "v0-x"]).clone(), redis::Cmd::del(&mark)];
    for damage in damages {
        damage.exec_async(&mut redis).await.unwrap();
        for words in [&["verify"][..], &["verify", "--sample=50"], &["verify", "--repair"]] {
            let said = blog.tool(words).fails().await;
            assert!(said.contains("partition 1 watermark"), "{said}");
        }
    }
}

#[tokio::test]
async fn what_a_partition_is_yet_to_be_filled_with_is_no_difference() {
    let blog = written().await;
    blog.loses(P).await;
    for words in [&["verify"][..], &["verify", "--sample=200"]] {
        let said = blog.tool(words).succeeds().await;
        assert!(said.contains(" 0 differences"), "{said}");
        assert!(said.contains("partition 1 is being filled"), "{said}");
        assert!(!said.contains("partition 2 is being filled"), "{said}");
    }
    // What is there is compared all the same.
    let list = blog.key(P, "list:published");
    let place = format!("{:016x}:{}", 12, blog.ids[5]);
    blog.redis().await.unwrap().zadd::<_, _, _, ()>(&list, &place, 0).await.unwrap();
    blog.redis().await.unwrap().sadd::<_, _, ()>(blog.key(P, "lists"), "published").await.unwrap();
    let said = blog.tool(&["verify", "--repair"]).fails().await;
    assert!(said.contains(" 1 differences") && said.contains("1 repaired"), "{said}");

    for partition in Blog::partitions() {
        blog.loses(partition).await;
    }
    let said = blog.tool(&["verify"]).fails().await;
    assert!(said.contains(" 0 differences"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_folded_anew_is_named_and_counted() {
    let blog = written().await;
    let id = blog.ids[5];
    let mut redis = blog.redis().await.unwrap();
    let row = blog.key(P, &format!("post:{id}"));
    redis.hset::<_, _, _, ()>(&row, "content", "\"Other.\"").await.unwrap();
    // Always further than what a page can be folded as of.
    redis.hset::<_, _, _, ()>(blog.key(P, "watermark"), "position", 99_999_999).await.unwrap();
    let said = blog.tool(&["verify", "--repair"]).fails().await;
    assert!(
        said.contains(&format!("Page {id} is not what the log makes of it, and could not")),
        "{said}"
    );
    assert!(said.contains(" 0 repaired, 1 could not be repaired"), "{said}");
}

struct Written {
    blog: Blog,
    ids: Vec<PostId>,
}

impl std::ops::Deref for Written {
    type Target = Blog;

    fn deref(&self) -> &Blog {
        &self.blog
    }
}

/// A blog whose views are complete.
async fn written() -> Written {
    let blog = Blog::new().await;
    let ids = blog.publish_in_all(10).await;
    blog.delete(ids[1]).await;
    blog.unpublish(ids[2]).await;
    let projector = blog.project_impatiently().await;
    blog.views_agree_with_the_log().await;
    projector.stop().await;
    Written { blog, ids }
}

async fn finds_and_mends(blog: &Blog, names: &[&str]) {
    let said = blog.tool(&["verify"]).fails().await;
    for name in names {
        assert!(said.contains(name), "{name} is not in: {said}");
    }
    let said = blog.tool(&["verify", "--repair"]).fails().await;
    assert!(said.contains("1 repaired"), "{said}");
    let said = blog.tool(&["verify"]).succeeds().await;
    assert!(said.contains(" 0 differences"), "{said}");
    blog.views_agree_with_the_log().await;
}

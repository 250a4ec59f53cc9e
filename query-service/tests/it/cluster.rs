//! Views on a Redis Cluster of which a part is away.

use domain::PostId;
use testkit::{eventually, own_redis_cluster};

use crate::support::{Blog, WITHOUT_MEMORY, database};

#[tokio::test]
async fn while_a_master_is_away_pages_of_the_others_still_come_from_redis() {
    let database = database().await;
    let mut cluster = own_redis_cluster(false).await;
    let (url, redis_url) = (database.url(), cluster.url_of_all());
    let blog = Blog::start_behind(url, url, &redis_url, &WITHOUT_MEMORY).await;
    let mut posts: Vec<(PostId, usize)> = vec![];
    for number in 0..30 {
        let id = blog.publish(&format!("post-{number}")).await;
        let partition = blog.views.partition_of(id);
        let key = format!("{{{}:g1:{partition}}}:", blog.settings.prefix);
        posts.push((id, cluster.first_owner(cluster.slot_of(&key).await)));
    }
    blog.project().await;
    let source = async |id: PostId| {
        let answer = blog.reader().get(&format!("/posts/{id}")).await;
        assert_eq!(answer.status, 200);
        answer.source().to_owned()
    };
    let all_come_from = async |expected: &str, is_meant: &dyn Fn(usize) -> bool| {
        for (id, owner) in &posts {
            if is_meant(*owner) && source(*id).await != expected {
                return false;
            }
        }
        true
    };
    eventually("all come from Redis", async || all_come_from("redis", &|_| true).await).await;

    let away = posts[0].1;
    assert!(posts.iter().any(|(_, owner)| *owner != away), "one master has all partitions");
    cluster.master(away).kill().unwrap();
    for _ in 0..3 {
        assert!(all_come_from("log", &|owner| owner == away).await);
        eventually("the others come from Redis", async || {
            all_come_from("redis", &|owner| owner != away).await
        })
        .await;
    }
}

//! A cluster of three masters, which all tests share unless they bring their own.

use testkit::{RedisCluster, own_redis_cluster};
use tokio::sync::OnceCell;

pub(crate) async fn cluster() -> &'static RedisCluster {
    static CLUSTER: OnceCell<RedisCluster> = OnceCell::const_new();
    CLUSTER.get_or_init(|| own_redis_cluster(false)).await
}

pub(crate) async fn url() -> String {
    cluster().await.url()
}

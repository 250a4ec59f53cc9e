//! A cluster of three masters, which all tests share.

use testkit::{RedisCluster, own_redis_cluster};
use tokio::sync::OnceCell;

pub(crate) async fn url() -> String {
    static CLUSTER: OnceCell<RedisCluster> = OnceCell::const_new();
    CLUSTER.get_or_init(|| own_redis_cluster(false)).await.url()
}

//! Servers of a single test's own: for tests that kill, flush or fill them. Their folders vanish
//! with them.

use crate::{
    Kafka, KafkaOptions, Place, Postgres, PostgresOptions, Proxied, Proxy, Redis, RedisCluster,
    RedisOptions,
};

/// # Panics
///
/// If it does not start.
pub async fn own_postgres() -> Postgres {
    Postgres::start(postgres_options()).await.expect("the test's own Postgres did not start")
}

/// A hot standby that follows a Postgres of the test's own.
///
/// # Panics
///
/// If it does not start.
pub async fn own_standby_of(primary: &Postgres) -> Postgres {
    primary.standby(postgres_options()).await.expect("the standby did not start")
}

fn postgres_options() -> PostgresOptions {
    let place = Place::passing_for_postgres("postgres").expect("no folder for Postgres");
    PostgresOptions {
        log: place.log(),
        place,
        port: 0,
        settings: vec![
            // Such a test uses a handful of connections, and several run at once.
            ("shared_buffers".to_owned(), "32MB".to_owned()),
            // To be killed costs a server nothing that it has written: only a machine that fails would.
            ("fsync".to_owned(), "off".to_owned()),
        ],
    }
}

/// # Panics
///
/// If it does not start.
pub async fn own_redis() -> Redis {
    own_redis_with(&[]).await
}

/// With settings as in `redis.conf`: `("maxmemory", "20mb")`.
///
/// # Panics
///
/// If it does not start.
pub async fn own_redis_with(settings: &[(&str, &str)]) -> Redis {
    let place = Place::passing("redis").expect("no folder for Redis");
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let options = RedisOptions {
        log: place.log(),
        place,
        port: 0,
        durable: false,
        settings: settings.collect(),
    };
    Redis::start(options).await.expect("the test's own Redis did not start")
}

/// Three masters, each with a replica to take its place, or without.
///
/// # Panics
///
/// If it does not start.
pub async fn own_redis_cluster(with_replicas: bool) -> RedisCluster {
    RedisCluster::start(3, with_replicas).await.expect("the test's own cluster did not start")
}

/// # Panics
///
/// If it does not start.
pub async fn own_kafka() -> Kafka {
    own_kafka_with(&[]).await
}

/// With settings as in `server.properties`: `("auto.create.topics.enable", "true")`.
///
/// # Panics
///
/// If it does not start.
pub async fn own_kafka_with(settings: &[(&str, &str)]) -> Kafka {
    start_kafka(Vec::new(), settings).await
}

/// A Kafka and a proxy in front of it. Clients given the proxy's address stay behind it; those
/// given `Kafka::brokers` go straight.
///
/// # Panics
///
/// If it does not start.
pub async fn own_kafka_behind_proxy() -> (Kafka, Proxy) {
    let way = Proxied::on_free_ports().expect("no free ports");
    let kafka = start_kafka(vec![way], &[]).await;
    let proxy = Proxy::on_port(way.told, &format!("127.0.0.1:{}", way.listens))
        .expect("the proxy's port was taken");
    (kafka, proxy)
}

async fn start_kafka(proxied: Vec<Proxied>, more: &[(&str, &str)]) -> Kafka {
    let place = Place::passing("kafka").expect("no folder for Kafka");
    // A broker that was killed is let back in when its old session has run out, by default
    // after 9 s. One that only stood still for a while is not to lose its session: its
    // partitions would have a new leader, which clients may not forget when a topic is made
    // again.
    let sessions = [("broker.session.timeout.ms", "6000"), ("broker.heartbeat.interval.ms", "400")];
    let settings = sessions.iter().chain(more);
    let options = KafkaOptions {
        log: place.log(),
        place,
        port: 0,
        controller_port: 0,
        heap_megabytes: 384,
        proxied,
        settings: settings.map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    Kafka::start(options).await.expect("the test's own Kafka did not start")
}

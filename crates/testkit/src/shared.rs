//! The servers all tests of a run share, and names that keep the tests apart on them.

use crate::{Proxied, Proxy};

/// The variables by which `inkstream-dev with-servers` tells tests where the servers are.
pub const POSTGRES_URL: &str = "INKSTREAM_TEST_POSTGRES_URL";
pub const REDIS_URL: &str = "INKSTREAM_TEST_REDIS_URL";
pub const KAFKA: &str = "INKSTREAM_TEST_KAFKA";
/// `<listens>=<told>` for each way into Kafka that leads through a proxy, separated by commas.
pub const KAFKA_PROXIED: &str = "INKSTREAM_TEST_KAFKA_PROXIED";

/// Where the servers of this run are.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The superuser's, leading to the database `postgres`.
    pub postgres_url: String,
    pub redis_url: String,
    /// `host:port`
    pub kafka: String,
}

/// # Panics
///
/// Outside `make test` and `make test-shell`.
pub fn shared() -> Shared {
    Shared {
        postgres_url: variable(POSTGRES_URL),
        redis_url: variable(REDIS_URL),
        kafka: variable(KAFKA),
    }
}

impl Shared {
    /// The address of a database on the shared Postgres.
    pub fn database_url(&self, name: &str) -> String {
        let (server, _) = self.postgres_url.rsplit_once('/').unwrap_or((&self.postgres_url, ""));
        format!("{server}/{name}")
    }

    /// A proxy in front of the shared Postgres, with the address of a database through it.
    pub fn postgres_proxy(&self, database: &str) -> (Proxy, String) {
        through_proxy(&self.database_url(database))
    }

    /// A proxy in front of the shared Redis, with the address that leads through it.
    pub fn redis_proxy(&self) -> (Proxy, String) {
        through_proxy(&self.redis_url)
    }

    /// A proxy in front of the shared Kafka; clients are given its address as their broker.
    ///
    /// Kafka knows only a few, so this waits while other tests have them all.
    pub async fn kafka_proxy(&self) -> Proxy {
        let ways = proxied_from(&variable(KAFKA_PROXIED));
        for _ in 0..1200 {
            for way in &ways {
                // Whoever gets to listen on the port that Kafka tells its clients, has it.
                if let Ok(proxy) = Proxy::on_port(way.told, &format!("127.0.0.1:{}", way.listens)) {
                    return proxy;
                }
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("other tests held all proxies of Kafka for two minutes");
    }
}

/// `base` with a random end, for topics, groups, databases and key prefixes.
pub fn unique_name(base: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{base}_{}", &random[..12])
}

/// Puts a proxy between us and the server of a URL.
fn through_proxy(url: &str) -> (Proxy, String) {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end = url[after_scheme..].find('/').map_or(url.len(), |at| after_scheme + at);
    let start = url[..end].rfind('@').map_or(after_scheme, |at| at + 1);
    let proxy = Proxy::start(&url[start..end]);
    let proxied = format!("{}{}{}", &url[..start], proxy.address(), &url[end..]);
    (proxy, proxied)
}

fn proxied_from(list: &str) -> Vec<Proxied> {
    let port = |text: &str| text.parse().unwrap_or_else(|_| panic!("{KAFKA_PROXIED} is garbled"));
    list.split(',')
        .filter_map(|way| way.split_once('='))
        .map(|(listens, told)| Proxied { listens: port(listens), told: port(told) })
        .collect()
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("run the tests with `make test`, or inside `make test-shell`"))
}

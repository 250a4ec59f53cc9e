//! Clients that occupy connections and give nothing for it do not keep others from being served.

use std::time::{Duration, Instant};

use journeys::{Blog, Ground, Service, SlowClients, Slowness};
use testkit::eventually_within;
use tokio::task::JoinSet;

/// Of each service.
const SLOW: usize = 500;
const HONEST: usize = 50;
/// More than the connections that a service has in one of the tests.
const FLOOD: usize = 120;
const LIMIT: Duration = Duration::from_secs(300);
/// How much memory they may cost a service.
const MAX_GROWTH_KIB: u64 = 100 << 10;
/// On a busy machine Postgres and Redis may take long for so many debug builds. That is not what this is about.
const PATIENT: [(&str, &str); 3] = [
    ("INKSTREAM_REDIS_LIMIT_MS", "20000"),
    ("INKSTREAM_LOG_LIMIT_MS", "50000"),
    ("INKSTREAM_REQUEST_SECONDS", "55"),
];

#[tokio::test(flavor = "multi_thread")]
async fn beside_slow_clients_of_every_kind_all_others_are_served() {
    let mut blog = Blog::start_on(Ground::shared().await, &PATIENT).await;
    let quiet = serve_honest_clients(&blog, "quiet").await;
    for slowness in Slowness::ALL {
        let (command, query) = (resident_kib(&mut blog.command), resident_kib(&mut blog.query));
        let token = blog.token_of("mallory");
        let (commands, queries) = (blog.command.url(), blog.query.url());
        let attack = tokio::join!(
            SlowClients::begin(slowness, SLOW, &commands, &token),
            SlowClients::begin(slowness, SLOW, &queries, &token),
        );

        let slowest = serve_honest_clients(&blog, &format!("{slowness:?}")).await;
        for service in [&blog.command, &blog.query] {
            service.assert_ready(&format!("{slowness:?}")).await;
        }
        for (service, before) in [(&mut blog.command, command), (&mut blog.query, query)] {
            let growth = resident_kib(service).saturating_sub(before);
            report(&format!("{slowness:?}: {} grew by {growth} KiB", service.name()));
            assert!(
                growth < MAX_GROWTH_KIB,
                "{slowness:?}: {} grew by {growth} KiB",
                service.name()
            );
        }
        report(&format!("{slowness:?}: the slowest request took {slowest:?}, in quiet {quiet:?}"));
        drop(attack);
    }
}

/// A client that has waited for too long may lose its connection, so it asks again, as clients do.
#[tokio::test(flavor = "multi_thread")]
async fn at_the_limit_of_connections_others_are_still_served() {
    let blog = Blog::start_on(Ground::shared().await, &[("INKSTREAM_CONNECTIONS", "50")]).await;
    let (anne, reader) = (blog.sign_up("anne"), blog.reader());
    for slowness in [Slowness::Silent, Slowness::HalfHead, Slowness::Idle] {
        let command = SlowClients::begin(slowness, FLOOD, &blog.command.url(), "").await;
        let query = SlowClients::begin(slowness, FLOOD, &blog.query.url(), "").await;
        let post = anne.publish_patiently(&format!("Beside {slowness:?}")).await;
        eventually_within(LIMIT, "it can be read", async || {
            let page = reader.try_get(&format!("/posts/{}", post.id)).await;
            page.is_ok_and(|page| post.is_shown_by(&page))
        })
        .await;
        for service in [&blog.command, &blog.query] {
            service.assert_ready(&format!("{slowness:?}")).await;
        }
        for service in [&blog.command, &blog.query] {
            let metrics = service.metrics().await;
            let open = "http_connections{port=\"http\"} ";
            let open = metrics.lines().find_map(|line| line.strip_prefix(open)).expect("no gauge");
            assert!(open.parse::<u32>().expect("no number") <= 50, "{open}");
            assert!(metrics.contains("reason=\"evicted\""), "{slowness:?}: none was closed");
        }
        drop((command, query));
    }
}

/// Publishes and reads with many clients at once. All of them succeed; the longest time of one request.
async fn serve_honest_clients(blog: &Blog, name: &str) -> Duration {
    let mut clients = JoinSet::new();
    for number in 0..HONEST {
        let author = blog.sign_up(&format!("author-{number}"));
        let reader = blog.reader();
        let name = name.to_owned();
        clients.spawn(async move {
            let begun = Instant::now();
            let post = author.publish(&format!("{name} {number}")).await;
            let published = begun.elapsed();
            let page = reader.page(&post.id).await;
            assert!(post.is_shown_by(&page), "{page:?}");
            published.max(begun.elapsed() - published)
        });
    }
    clients.join_all().await.into_iter().max().unwrap_or_default()
}

/// Physical memory that a service takes, as the system sees it.
fn resident_kib(service: &mut Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.process().id()));
    let status = status.expect("the process has no status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    kib.expect("the process has no size")
}

#[expect(clippy::print_stdout, reason = "a figure for people, which no test may assert")]
fn report(figure: &str) {
    println!("{figure}");
}

//! How many readers get one hot page: `GET /posts/{slug}` with 2 kB, against a bare axum route that gives
//! the same bytes; and with the query service's memory switched off, against a naive handler that reads the
//! same page from the same Redis. Those two once more with reads spread evenly over many pages, where nobody
//! gains by asking for what somebody else asks for, too.
//!
//! They take turns, so that noise on the machine meets all of them.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Args;
use crate::bare;
use crate::http::{Answer, Connection};
use crate::load::{CLIENTS, Client, Medians, Round, closed_loop, run};
use crate::naive;
use crate::report::{Aim, Report};
use crate::requests::{Request, address_of, text};
use crate::system::Whole;

/// With everything else that belongs to a page this makes 2 kB.
const TEXT_BYTES: usize = 1680;
/// Over how many pages reads are spread.
const PAGES: usize = 1000;

pub(crate) async fn measure(whole: &Whole, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let path = publish(whole).await?;
    let mut paths = vec![];
    for _ in 0..PAGES {
        paths.push(publish(whole).await?);
    }
    whole.until_seen().await?;
    let forgetful = whole.system.start("query-service", &[("INKSTREAM_MEMORY_MIB", "0")]).await;
    let hot = address_of(&whole.query.url())?;
    let redis = address_of(&forgetful.url())?;

    let mut connection = Connection::open(hot).await?;
    let mut request = Request::get(hot, &path);
    connection.ask(request.next()).await?;
    // The second answer comes from where all that follow do.
    let answer = connection.ask(request.next()).await?;
    ensure!(answer.status == 200, answer.unexpected());
    let source = answer.headers().find(|(name, _)| *name == "freshness");
    let source = source.map_or_else(|| "no source".to_owned(), |(_, value)| value.to_owned());
    let bytes = answer.body.len();
    let (_bare, bare) = bare::start(&whole.system, answer).await?;
    let (_naive, naive) = naive::start(&whole.system, hot, paths.iter().chain([&path])).await?;

    let mut rounds: [Vec<Round>; 4] = Default::default();
    let mut spread: [Vec<Round>; 2] = Default::default();
    for round in 1..=args.rounds {
        report.progress(&format!("GET of a hot page, round {round} of {}", args.rounds));
        for (done, to) in rounds.iter_mut().zip([bare, hot, redis, naive]) {
            done.push(read(to, &path, bytes, args.seconds).await?);
        }
        report.progress(&format!("GET of {PAGES} pages, round {round} of {}", args.rounds));
        for (done, to) in spread.iter_mut().zip([redis, naive]) {
            done.push(run(to, Walker::of_all(to, &paths), args.seconds).await?);
        }
    }
    let [bare, hot, redis, naive] = rounds.map(|rounds| Medians::of(&rounds));
    let [redis_spread, naive_spread] = spread.map(|rounds| Medians::of(&rounds));
    report.heading(&format!(
        "GET /posts/{{slug}}, a page of {bytes} bytes, {CLIENTS} clients, medians of {} × {} s",
        args.rounds, args.seconds
    ));
    report.note(&format!("the query service answered with freshness: {source}"));
    report.figure("bare_read_per_s", "a bare axum route", bare.per_second, "reads/s");
    report.figure("hot_read_per_s", "the query service", hot.per_second, "reads/s");
    let ratio = hot.per_second / bare.per_second;
    report.aimed("hot_read_vs_bare", "ratio", ratio, "", Aim::AtLeast(0.8));
    let what = "without its memory, from Redis";
    report.figure("redis_read_per_s", what, redis.per_second, "reads/s");
    let what = "a naive handler, from Redis";
    report.figure("naive_read_per_s", what, naive.per_second, "reads/s");
    let ratio = redis.per_second / naive.per_second;
    report.aimed("redis_vs_naive", "ratio", ratio, "", Aim::AtLeast(1.5));
    let what = format!("without its memory, spread over {PAGES} pages");
    report.figure("redis_spread_per_s", &what, redis_spread.per_second, "reads/s");
    let what = format!("a naive handler, spread over {PAGES} pages");
    report.figure("naive_spread_per_s", &what, naive_spread.per_second, "reads/s");
    let ratio = redis_spread.per_second / naive_spread.per_second;
    report.figure("redis_spread_vs_naive", "ratio", ratio, "");
    report.figure("bare_read_p50_ms", "bare route, median", bare.p50_ms, "ms");
    report.figure("bare_read_p99_ms", "bare route, 99th percentile", bare.p99_ms, "ms");
    report.figure("hot_read_p50_ms", "query service, median", hot.p50_ms, "ms");
    report.figure("hot_read_p99_ms", "query service, 99th percentile", hot.p99_ms, "ms");
    report.figure("redis_read_p50_ms", "from Redis, median", redis.p50_ms, "ms");
    report.figure("redis_read_p99_ms", "from Redis, 99th percentile", redis.p99_ms, "ms");
    report.figure("naive_read_p50_ms", "naive handler, median", naive.p50_ms, "ms");
    report.figure("naive_read_p99_ms", "naive handler, 99th percentile", naive.p99_ms, "ms");
    Ok(())
}

async fn read(to: SocketAddr, path: &str, bytes: usize, seconds: u32) -> anyhow::Result<Round> {
    let mut request = Request::get(to, path);
    let mut connection = Connection::open(to).await?;
    let answer = connection.ask(request.next()).await?;
    ensure!(answer.status == 200 && answer.body.len() == bytes, answer.unexpected());
    closed_loop(to, &request, 200, seconds).await
}

/// Reads many pages, one after the other and over again.
struct Walker {
    requests: Vec<Request>,
    at: usize,
}

impl Walker {
    /// All clients, each at another page.
    fn of_all(to: SocketAddr, paths: &[String]) -> Vec<Self> {
        let requests: Vec<_> = paths.iter().map(|path| Request::get(to, path)).collect();
        let walker =
            |client| Self { requests: requests.clone(), at: client * requests.len() / CLIENTS };
        (0..CLIENTS).map(walker).collect()
    }
}

impl Client for Walker {
    fn next(&mut self) -> Option<&[u8]> {
        self.at = (self.at + 1) % self.requests.len();
        self.requests.get_mut(self.at).map(Request::next)
    }

    fn look_at(&mut self, answer: Answer<'_>) -> anyhow::Result<()> {
        if answer.status == 200 { Ok(()) } else { Err(answer.unexpected()) }
    }
}

/// Publishes a page, and returns its path.
async fn publish(whole: &Whole) -> anyhow::Result<String> {
    let to = address_of(&whole.command.url())?;
    let mut request = Request::publish(to, &whole.system.token()?, &text(TEXT_BYTES));
    let mut connection = Connection::open(to).await?;
    let answer = connection.ask(request.next()).await?;
    ensure!(answer.status == 201, answer.unexpected());
    let answer: Value = serde_json::from_slice(answer.body)?;
    let slug = answer["slug"].as_str().context("the post has no slug")?;
    Ok(format!("/posts/{slug}"))
}

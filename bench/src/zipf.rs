//! Readers who want few posts often and most of them hardly ever, with a Redis that has no room for all: the
//! pages of 4 kB make more than three times its memory, and the n-th most popular is asked for in proportion
//! to 1/n.
//!
//! What a post is popular for has nothing to do with its age.

use std::iter::repeat_with;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use journeys::Service;

use crate::Args;
use crate::history;
use crate::load::{self, CLIENTS, Medians, Round};
use crate::random::{Popularity, Random};
use crate::readers::{Mistakes, Reader};
use crate::redis_server::Info;
use crate::report::{Aim, Report};
use crate::requests::address_of;
use crate::stories::Published;
use crate::system::{System, Whole, counter};

const POSTS: usize = 200_000;
const TEXT_BYTES: usize = 4096;
const REDIS: [(&str, &str); 2] = [("maxmemory", "256mb"), ("maxmemory-policy", "volatile-lfu")];
/// Without a divisor in common with the number of posts, so that every rank has a post of its own.
const SCATTER: usize = 104_729;
/// The projector has so long for what is missing once all is written. After that it is read as it is.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the projector says when it could not write, whatever the reason.
const FAILURES: [&str; 2] = ["A batch waits", "could not be brought up to date"];

/// Reads of pages that the query service has answered so far, by where the answers came from.
#[derive(Debug, Clone, Copy)]
struct Sources {
    memory: f64,
    redis: f64,
    log: f64,
}

pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let redis = testkit::own_redis_with(&REDIS).await;
    let whole = Whole::start_on(System::on_redis(redis.url()).await?).await?;
    report.progress(&format!("publishing {POSTS} posts of 4 kB"));
    let written = history::write(&whole.system, Published::new(POSTS, TEXT_BYTES)).await?;
    report.progress("the projector brings them into a Redis of 256 MB");
    let in_time = whole.have_seen_within(PATIENCE).await?;
    let lag = whole.lag().await?.in_the_views;

    let (to, popularity) = (address_of(&whole.query.url())?, Arc::new(Popularity::of(POSTS)));
    let mistakes = Arc::<Mistakes>::default();
    report.progress("GET of many pages, warming up");
    read(to, 0, &popularity, &mistakes, args).await?;
    let before = Sources::of(&whole.query).await?;
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        report.progress(&format!("GET of many pages, round {round} of {}", args.rounds));
        rounds.push(read(to, round, &popularity, &mistakes, args).await?);
    }
    let sources = Sources::of(&whole.query).await?.since(before);
    let done = Medians::of(&rounds);

    report.heading(&format!(
        "GET /posts/{{slug}} of {POSTS} posts of 4 kB by a Zipf distribution, a Redis of 256 MB, {CLIENTS} \
        clients, medians of {} × {} s",
        args.rounds, args.seconds
    ));
    report.figure("zipf_reads_per_s", "the query service", done.per_second, "reads/s");
    report.figure("zipf_read_p50_ms", "median", done.p50_ms, "ms");
    report.figure("zipf_read_p99_ms", "99th percentile", done.p99_ms, "ms");
    let all = sources.memory + sources.redis + sources.log;
    for (name, count) in
        [("memory", sources.memory), ("redis", sources.redis), ("log", sources.log)]
    {
        let (key, what) = (format!("zipf_{name}_share"), format!("answered from: {name}, share"));
        report.figure(&key, &what, count / all, "");
    }
    let none = Aim::AtMost(0.0);
    let [wrong, errors] =
        [&mistakes.wrong, &mistakes.errors].map(|count| count.load(Ordering::Relaxed) as f64);
    report.aimed("zipf_wrong", "wrong answers, warming up included", wrong, "", none);
    report.aimed("zipf_errors", "errors, warming up included", errors, "", none);
    let rate = written.events_per_second;
    report.figure("zipf_written_per_s", "recorded, all services at work", rate, "events/s");
    if !in_time {
        report.note(&format!("the projector was not done {} s later", PATIENCE.as_secs()));
    }
    report.aimed("zipf_lag_views", "events not in the views when reading began", lag, "", none);
    report_the_way_there(&whole, &Info::of(&redis.url()).await?, report).await
}

/// How Redis has fared, and the projector with it.
async fn report_the_way_there(
    whole: &Whole,
    redis: &Info,
    report: &mut Report,
) -> anyhow::Result<()> {
    let none = Aim::AtMost(0.0);
    let limit = redis.number("maxmemory") / 1e6;
    let used = redis.number("used_memory") / 1e6;
    report.aimed("zipf_redis_mb", "memory that Redis uses", used, "MB", Aim::AtMost(limit));
    report.figure("zipf_redis_max_mb", "memory that it may use", limit, "MB");
    let evicted = redis.number("evicted_keys");
    report.figure("zipf_redis_evicted", "keys that it has let go", evicted, "");
    let refusals = redis.refusals();
    report.aimed("zipf_redis_refusals", "writes refused for want of memory", refusals, "", none);
    let said = std::fs::read_to_string(whole.system.log_of("projector"))?;
    let failures: usize = FAILURES.iter().map(|failure| said.matches(failure).count()).sum();
    let what = "times that the projector could not write";
    report.aimed("zipf_projector_failures", what, failures as f64, "", none);
    let epochs = counter(&whole.projector, "projector_epochs_total", "").await?;
    report.figure("zipf_projector_epochs", "partitions begun, 16 of them at first", epochs, "");
    Ok(())
}

/// Each round's readers want the same posts often, and other ones now and then.
async fn read(
    to: SocketAddr,
    round: usize,
    popularity: &Arc<Popularity>,
    mistakes: &Arc<Mistakes>,
    args: &Args,
) -> anyhow::Result<Round> {
    let reader = |client| {
        let mut random = Random::new((round * CLIENTS + client) as u64);
        let popularity = Arc::clone(popularity);
        let posts = repeat_with(move || post_of(popularity.pick(&mut random)));
        Reader::new(to, posts, Arc::clone(mistakes))
    };
    load::run(to, (0..CLIENTS).map(reader).collect(), args.seconds).await
}

/// The post that is the so-manieth most popular.
fn post_of(rank: usize) -> usize {
    rank * SCATTER % POSTS
}

impl Sources {
    async fn of(query: &Service) -> anyhow::Result<Self> {
        let from = |source| format!(r#"source="{source}""#);
        Ok(Self {
            memory: counter(query, "reads_total", &from("memory")).await?,
            redis: counter(query, "reads_total", &from("redis")).await?,
            log: counter(query, "reads_total", &from("log")).await?,
        })
    }

    fn since(self, before: Self) -> Self {
        Self {
            memory: self.memory - before.memory,
            redis: self.redis - before.redis,
            log: self.log - before.log,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_has_a_post_of_its_own() {
        let mut posts: Vec<usize> = (0..POSTS).map(post_of).collect();
        posts.sort_unstable();
        assert!(posts.into_iter().eq(0..POSTS));
    }
}

//! How fast all views are made anew: a million events, as a platform in use for years has them, against reading
//! the same log and doing nothing with it; and what readers and writers notice of it.
//!
//! Alone, a rebuild takes all it can get. In front of readers and writers it takes the share that it takes unless
//! told otherwise.

use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use testkit::{Process, Redis};

use crate::figures::{median, percentile};
use crate::history;
use crate::lively::Lively;
use crate::machine::peak_megabytes;
use crate::paced::Paced;
use crate::random::Popularity;
use crate::report::{Aim, Report};
use crate::requests::address_of;
use crate::schedule::{self, Post};
use crate::system::{System, Whole};
use crate::{Args, bare_log, redis_server};

const EVENTS: usize = 1_000_000;
const READERS: usize = 2;
const ALONE: [&str; 3] = ["rebuild", "--rebuild-lanes=2", "--rebuild-share=100"];
/// No tool takes longer.
const LIMIT: Duration = Duration::from_secs(900);
const COMMANDS_PER_SECOND: u64 = 200;
const READS_PER_SECOND: u64 = 2000;
const REVISED_POSTS: usize = 500;

/// How a tool of the projector fared.
struct Ended {
    status: ExitStatus,
    took: Duration,
    peak_megabytes: f64,
}

/// What readers and writers noticed, in each round of some seconds.
#[derive(Debug, Default)]
struct Noticed {
    command_p99_ms: Vec<f64>,
    read_p99_ms: Vec<f64>,
    failed_reads: u64,
}

pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let redis = testkit::own_redis().await;
    let system = System::on_redis(redis.url()).await?;
    let story = Lively::of_events(EVENTS);
    let public = story.public();
    report.progress(&format!("filling the log with {EVENTS} events of all kinds"));
    let written = history::write(&system, story).await?;
    // As autovacuum does in time. Else the first who reads a row has to write it, too.
    sqlx::query("VACUUM (ANALYZE) events").execute(&system.store.pool).await?;

    let (mut bare, mut copied, mut rebuilt, mut peaks) = (vec![], vec![], vec![], vec![]);
    for round in 1..=args.rounds {
        report.progress(&format!("reading the log bare, round {round} of {}", args.rounds));
        bare.push(bare_log::scanned_per_second(&system, READERS).await?);
        copied.push(bare_log::copied_per_second(&system, READERS as u64).await?);
        report.progress(&format!("rebuilding, round {round} of {}", args.rounds));
        forget_views(&system, &redis).await?;
        let ended = run(&system, &ALONE).await?;
        ensure!(ended.status.success(), "the rebuild failed: {}", said(&system, "rebuild"));
        rebuilt.push(written.events as f64 / ended.took.as_secs_f64());
        peaks.push(ended.peak_megabytes);
    }
    report.heading(&format!(
        "All views made anew from {} events by {READERS} lanes, from start to switch, medians of {} rounds",
        written.events, args.rounds
    ));
    report.note(
        "texts of 2 kB on average; 40 of a hundred posts revised, few of them up to 200 times",
    );
    let (rate, bare) = (median(&rebuilt), median(&bare));
    report.figure("rebuild_events_per_s", "rebuilt", rate, "events/s");
    let what = "the same rows read by as many readers and dropped";
    report.figure("rebuild_bare_per_s", what, bare, "events/s");
    report.aimed("rebuild_vs_bare", "ratio", rate / bare, "", Aim::AtLeast(0.5));
    let what = "payloads sent by Postgres with COPY, unread";
    report.figure("rebuild_copy_per_s", what, median(&copied), "events/s");
    report.figure("rebuild_peak_mb", "most memory of the rebuild", median(&peaks), "MB");
    let used = redis_server::Info::of(&redis.url()).await?.number("used_memory") / 1e6;
    report.figure("rebuild_redis_mb", "memory of Redis with one generation", used, "MB");
    measure_in_front_of_people(system, public, args, report).await
}

/// The same while commands and reads go on.
async fn measure_in_front_of_people(
    system: System,
    public: Vec<usize>,
    args: &Args,
    report: &mut Report,
) -> anyhow::Result<()> {
    system.count_as_carried().await?;
    let whole = Whole::start_on(system).await?;
    let posts = schedule::publish(&whole, REVISED_POSTS).await?;
    let reads = Paced {
        to: address_of(&whole.query.url())?,
        per_second: READS_PER_SECOND,
        popularity: Arc::new(Popularity::of(public.len())),
        posts: Arc::new(public),
    };
    report.progress("readers and writers, warming up");
    let mut warming_up = Noticed::default();
    warming_up.round(&whole, &posts, &reads, args).await?;
    let (mut before, mut during, mut verifying) =
        (Noticed::default(), Noticed::default(), Noticed::default());
    for round in 1..=args.rounds {
        report.progress(&format!("readers and writers alone, round {round} of {}", args.rounds));
        before.round(&whole, &posts, &reads, args).await?;
    }
    report.progress("readers and writers while all views are made anew");
    let rebuild = run_beside(&whole, &["rebuild"], &mut during, &posts, &reads, args).await?;
    ensure!(rebuild.status.success(), "the rebuild failed: {}", said(&whole.system, "rebuild"));
    report.progress("readers and writers while all views are verified");
    let verify = run_beside(&whole, &["verify"], &mut verifying, &posts, &reads, args).await?;

    report.heading(&format!(
        "The same with {COMMANDS_PER_SECOND} commands/s and {READS_PER_SECOND} reads/s going on, at the share that \
        it takes unless told otherwise, once"
    ));
    report.figure("rebuild_loaded_s", "from start to switch", rebuild.took.as_secs_f64(), "s");
    let p99 = |values: &[f64]| median(values);
    for (key, what, before, during) in [
        ("command", "commands", &before.command_p99_ms, &during.command_p99_ms),
        ("read", "reads", &before.read_p99_ms, &during.read_p99_ms),
    ] {
        let (without, with) = (p99(before), p99(during));
        let unit = "ms";
        let key = |end: &str| format!("rebuild_{key}_p99_{end}_ms");
        report.figure(&key("before"), &format!("{what}, 99th percentile before it"), without, unit);
        report.figure(&key("during"), &format!("{what}, 99th percentile meanwhile"), with, unit);
    }
    let none = Aim::AtMost(0.0);
    let failed = (before.failed_reads + during.failed_reads + verifying.failed_reads) as f64;
    report.aimed("rebuild_failed_reads", "reads that failed", failed, "", none);
    let took = verify.took.as_secs_f64();
    report.figure("rebuild_verify_s", "all pages and lists verified in", took, "s");
    let differences = f64::from(u8::from(!verify.status.success()));
    report.aimed("rebuild_differs", "the verification found differences", differences, "", none);
    if !verify.status.success() {
        report.note(&said(&whole.system, "verify"));
    }
    Ok(())
}

/// Runs a tool of the projector, and lets readers and writers go on until it ends.
async fn run_beside(
    whole: &Whole,
    words: &[&str],
    noticed: &mut Noticed,
    posts: &[Post],
    reads: &Paced,
    args: &Args,
) -> anyhow::Result<Ended> {
    let running = run(&whole.system, words);
    tokio::pin!(running);
    loop {
        let round = noticed.round(whole, posts, reads, args);
        tokio::pin!(round);
        tokio::select! {
            ended = &mut running => {
                round.await?;
                return ended;
            }
            done = &mut round => done?,
        }
    }
}

impl Noticed {
    async fn round(
        &mut self,
        whole: &Whole,
        posts: &[Post],
        reads: &Paced,
        args: &Args,
    ) -> anyhow::Result<()> {
        let duration = Duration::from_secs(args.seconds.into());
        let commands = schedule::run(whole, COMMANDS_PER_SECOND, duration, posts.to_vec());
        let (done, seen) = tokio::try_join!(commands, reads.read(duration))?;
        let took: Vec<Duration> = done.iter().map(|done| done.took).collect();
        self.command_p99_ms.push(percentile(&took, 99));
        self.read_p99_ms.push(percentile(&seen.took, 99));
        self.failed_reads += seen.failed;
        Ok(())
    }
}

/// As before the first projector started.
async fn forget_views(system: &System, redis: &Redis) -> anyhow::Result<()> {
    let mut connection = redis_server::connect(&redis.url()).await?;
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await?;
    sqlx::query("DELETE FROM generations").execute(&system.store.pool).await?;
    Ok(())
}

/// Runs a tool of the projector to its end.
async fn run(system: &System, words: &[&str]) -> anyhow::Result<Ended> {
    let began = Instant::now();
    let mut tool: Process = system.projector_tool(words)?;
    let mut peak = 0.0;
    loop {
        if let Some(status) = tool.exited()? {
            return Ok(Ended { status, took: began.elapsed(), peak_megabytes: peak });
        }
        ensure!(began.elapsed() < LIMIT, "`projector {}` does not come to an end", words.join(" "));
        // It fails where the process has just ended.
        peak = peak_megabytes(tool.id()).unwrap_or(peak);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The last that a tool said.
fn said(system: &System, tool: &str) -> String {
    let all = std::fs::read_to_string(system.log_of(tool)).unwrap_or_default();
    let lines: Vec<&str> = all.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

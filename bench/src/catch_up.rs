//! How fast a projector that comes back catches up: 200,000 events that wait for it in Kafka.
//!
//! Each round has views and a consumer group of its own, whose projector was there while the log was empty.
//! So it finds a watermark, and an offset, from which it can go on.
//!
//! A partition in which nothing moves for some seconds is read from Postgres instead, or begun anew. So that
//! Kafka is what is measured, the projector is given the patience to wait for it; and is watched once more
//! with the patience that it has by itself.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use domain::Point;
use journeys::Service;
use read_model::{Views, Watermark};
use testkit::unique_name;

use crate::Args;
use crate::figures::median;
use crate::history;
use crate::machine::resident_megabytes;
use crate::report::{Aim, Report};
use crate::stories::RevisedTwice;
use crate::system::{System, counter};

const STORY: RevisedTwice = RevisedTwice { posts: 50_000 };
const EVENTS: usize = STORY.events();
/// In milliseconds, longer than any partition waits in a round.
const PATIENT: &str = "60000";
const LIMIT: Duration = Duration::from_secs(120);
/// What the projector says of a partition that it follows in the log.
const SILENT: &str = "Kafka is silent";

/// Views of their own, and who follows the log for them.
struct Follower {
    prefix: String,
    group: String,
    views: Views,
}

/// How one of them caught up.
#[derive(Debug)]
struct CaughtUp {
    per_second: f64,
    /// From its start until the first event was in the views.
    began_after: Duration,
    megabytes: f64,
    epochs: f64,
    gaps: f64,
    /// Partitions that it read from the log because Kafka brought nothing.
    silent: f64,
}

pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let system = System::new().await?;
    let _relay = system.start("command-service", &[]).await;
    let mut followers = Vec::new();
    for _ in 0..=args.rounds {
        let follower = Follower::new(&system)?;
        follower.be_there(&system).await?;
        followers.push(follower);
    }

    report.progress(&format!("filling the log with {EVENTS} events"));
    history::write(&system, STORY).await?;
    system.until_carried().await?;
    let heads = system.log.heads().await?;
    let mut rounds = Vec::new();
    let mut followers = followers.into_iter();
    for (round, follower) in (1..=args.rounds).zip(&mut followers) {
        report.progress(&format!("the projector catches up, round {round} of {}", args.rounds));
        let patient = [("INKSTREAM_PATIENCE_MS", PATIENT)];
        rounds.push(follower.catch_up(&system, &heads, &patient).await?);
    }

    let of = |value: fn(&CaughtUp) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    report.heading(&format!(
        "The projector catches up {EVENTS} events from Kafka alone, medians of {} rounds",
        args.rounds
    ));
    let by_kafka = rounds.iter().filter(|done| done.came_by_kafka()).count();
    report.note(&format!(
        "in {by_kafka} rounds nothing was read from the log and nothing begun anew"
    ));
    let per_second = of(|done| done.per_second);
    report.figure("catch_up_events_per_s", "brought into the views", per_second, "events/s");
    let began = of(|done| done.began_after.as_secs_f64());
    report.figure("catch_up_began_s", "from its start to the first event", began, "s");
    let (size, aim) = (of(|done| done.megabytes), Aim::AtMost(100.0));
    report.aimed("rss_mb/projector_catching_up", "its memory at the end", size, "MB", aim);

    report.heading("The same with the patience that it has by itself, once");
    for follower in followers {
        report.progress("the projector catches up, with the patience that it has by itself");
        let done = follower.catch_up(&system, &heads, &[]).await?;
        report_as_it_is(&done, report);
    }
    Ok(())
}

fn report_as_it_is(done: &CaughtUp, report: &mut Report) {
    let CaughtUp { per_second, epochs, gaps, silent, megabytes, .. } = *done;
    let none = Aim::AtMost(0.0);
    let events = "brought into the views, by whatever way";
    report.figure("catch_up_as_is_events_per_s", events, per_second, "events/s");
    report.aimed("catch_up_as_is_epochs", "partitions begun anew", epochs, "", none);
    report.aimed("catch_up_as_is_gaps", "gaps filled from the log", gaps, "", none);
    let followed = "partitions followed in the log, Kafka being silent";
    report.aimed("catch_up_as_is_silent", followed, silent, "", none);
    let size = "its memory at the end";
    report.figure("rss_mb/projector_catching_up_as_is", size, megabytes, "MB");
}

impl CaughtUp {
    fn came_by_kafka(&self) -> bool {
        [self.epochs, self.gaps, self.silent] == [0.0; 3]
    }
}

impl Follower {
    fn new(system: &System) -> anyhow::Result<Self> {
        let prefix = unique_name("bench");
        let views = system.views(Some(&prefix))?;
        Ok(Self { prefix, group: unique_name("projector"), views })
    }

    async fn start(&self, system: &System, more: &[(&'static str, &str)]) -> Service {
        let own = [
            ("INKSTREAM_REDIS_PREFIX", self.prefix.as_str()),
            ("INKSTREAM_KAFKA_GROUP", self.group.as_str()),
        ];
        system.start("projector", &[&own, more].concat()).await
    }

    /// Starts a projector until every partition has a watermark, and stops it.
    async fn be_there(&self, system: &System) -> anyhow::Result<()> {
        let mut projector = self.start(system, &[]).await;
        self.until(|marks| marks.iter().all(Option::is_some)).await?;
        ensure!(projector.terminate().await.success(), "the projector ended badly");
        Ok(())
    }

    async fn catch_up(
        &self,
        system: &System,
        heads: &[Point],
        more: &[(&'static str, &str)],
    ) -> anyhow::Result<CaughtUp> {
        let log = system.log_of("projector");
        let silent = || std::fs::read_to_string(&log).map(|said| said.matches(SILENT).count());
        let (silent_before, started) = (silent()?, Instant::now());
        // It may be at work before it says that it is ready.
        let moved = self.until(|marks| marks.iter().flatten().any(|m| m.point.position.0 > 0));
        let (mut projector, began) = tokio::join!(self.start(system, more), moved);
        let began = began?;
        let has_all = |mark: &Option<Watermark>, head: &Point| {
            let mark = mark.as_ref().filter(|mark| mark.unfilled_below.is_none());
            mark.is_some_and(|mark| mark.point == *head)
        };
        let ended =
            self.until(|marks| marks.iter().zip(heads).all(|(mark, head)| has_all(mark, head)));
        let ended = ended.await?;
        Ok(CaughtUp {
            per_second: EVENTS as f64 / (ended - began).as_secs_f64(),
            began_after: began - started,
            megabytes: resident_megabytes(projector.process().id())?,
            epochs: counter(&projector, "projector_epochs_total", "").await?,
            gaps: counter(&projector, "projector_judgements_total", "gap").await?,
            silent: (silent()? - silent_before) as f64,
        })
    }

    /// Looks at the watermarks until something is so, and tells when it was.
    async fn until(&self, is_so: impl Fn(&[Option<Watermark>]) -> bool) -> anyhow::Result<Instant> {
        let watched = tokio::time::timeout(LIMIT, async {
            while !is_so(&self.views.watermarks().await?) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(Instant::now())
        });
        watched.await.context("the projector does not come to an end")?
    }
}

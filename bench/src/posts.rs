//! How many posts are published over HTTP: `POST /posts` with about 1.2 kB, which makes two events and
//! claims a slug.
//!
//! First by a command service alone, with nothing else at work than Postgres, in turns with pgbench.
//! Then with relay, broker and projector carrying the events on, all on the same machine.

use anyhow::ensure;
use journeys::Service;

use crate::Args;
use crate::append::{self, Rows};
use crate::figures::median;
use crate::load::{CLIENTS, Medians, Round, closed_loop};
use crate::report::{Aim, Report};
use crate::requests::{Request, TEXT_BYTES, address_of, text};
use crate::system::{System, Whole};

/// A command service alone, against pgbench.
pub(crate) async fn measure_alone(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let (mut rounds, mut inserted) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        report.progress(&format!("POST /posts without relay, round {round} of {}", args.rounds));
        inserted.push(append::inserts_per_second(Rows::EventAndSlug, args.seconds).await?);
        let system = System::new().await?;
        system.hold_the_relay().await?;
        let service = system.start("command-service", &[]).await;
        let done = publish(&system, &service, args.seconds).await?;
        let events = system.log.head().await?.0;
        ensure!(
            events == 2 * done.answers as u64 && system.carried().await?.0 == 0,
            "{} commands were answered, but the log has {events} events",
            done.answers
        );
        rounds.push(done);
    }
    let done = Medians::of(&rounds);
    report.heading(&format!(
        "POST /posts, {CLIENTS} clients, the relay stopped, medians of {} × {} s",
        args.rounds, args.seconds
    ));
    report.figure("post_per_s", "published", done.per_second, "commands/s");
    report.figure("post_events_per_s", "two events each", 2.0 * done.per_second, "events/s");
    let pgbench = median(&inserted);
    let what = "pgbench in turns with it, one event and one slug";
    report.figure("post_pgbench_per_s", what, pgbench, "commits/s");
    let ratio = done.per_second / pgbench;
    report.aimed("post_vs_pgbench", "ratio", ratio, "", Aim::AtLeast(0.6));
    report.figure("post_p50_ms", "answered after, median", done.p50_ms, "ms");
    report.figure("post_p99_ms", "answered after, 99th percentile", done.p99_ms, "ms");
    Ok(())
}

/// The whole system; returns how many commands there were in a second.
pub(crate) async fn measure_whole(
    whole: &Whole,
    args: &Args,
    report: &mut Report,
) -> anyhow::Result<f64> {
    let (mut rounds, mut in_kafka, mut in_the_views) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        report.progress(&format!("POST /posts with all at work, round {round} of {}", args.rounds));
        rounds.push(publish(&whole.system, &whole.command, args.seconds).await?);
        let lag = whole.lag().await?;
        in_kafka.push(lag.in_kafka);
        in_the_views.push(lag.in_the_views);
        whole.until_seen().await?;
    }
    let done = Medians::of(&rounds);
    report.heading(&format!(
        "POST /posts, {CLIENTS} clients, relay, broker and projector at work, medians of {} × {} s",
        args.rounds, args.seconds
    ));
    report.figure("post_full_per_s", "published", done.per_second, "commands/s");
    report.figure("post_full_events_per_s", "two events each", 2.0 * done.per_second, "events/s");
    report.figure("post_full_p50_ms", "answered after, median", done.p50_ms, "ms");
    report.figure("post_full_p99_ms", "answered after, 99th percentile", done.p99_ms, "ms");
    let missing = "events not yet in Kafka at the end of a round";
    report.figure("post_full_lag_kafka", missing, median(&in_kafka), "events");
    let missing = "events not yet in the views at the end of a round";
    report.figure("post_full_lag_views", missing, median(&in_the_views), "events");
    Ok(done.per_second)
}

async fn publish(system: &System, service: &Service, seconds: u32) -> anyhow::Result<Round> {
    let to = address_of(&service.url())?;
    let request = Request::publish(to, &system.token()?, &text(TEXT_BYTES));
    closed_loop(to, &request, 201, seconds).await
}

//! How much longer others wait while 500 slow clients of each kind are connected to both services.

use anyhow::Context as _;
use journeys::{SlowClients, Slowness};

use crate::Args;
use crate::load::{CLIENTS, Medians, Round, closed_loop};
use crate::machine;
use crate::report::{Aim, Report};
use crate::requests::{Request, TEXT_BYTES, address_of, text};
use crate::system::Whole;

/// Of each service.
const SLOW: usize = 500;

/// How long readers and authors wait.
struct Waits {
    reads: Medians,
    posts: Medians,
}

pub(crate) async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut whole = Whole::start().await?;
    report.progress("reads and posts in quiet");
    let quiet = waits(&whole, args).await?;
    report.heading(&format!(
        "Reads of a list and POST /posts, {CLIENTS} clients each, medians of {} × {} s, in quiet and beside {SLOW} \
         slow clients of each service",
        args.rounds, args.seconds
    ));
    report.figure("slow/quiet_read_p99_ms", "in quiet, a read, 99 %", quiet.reads.p99_ms, "ms");
    report.figure("slow/quiet_post_p99_ms", "in quiet, a post, 99 %", quiet.posts.p99_ms, "ms");
    for slowness in Slowness::ALL {
        let name = format!("{slowness:?}");
        report.progress(&format!("reads and posts beside slow clients: {name}"));
        let token = whole.system.token()?;
        let (commands, queries) = (whole.command.url(), whole.query.url());
        let before = resident(&mut whole)?;
        let slow = tokio::join!(
            SlowClients::begin(slowness, SLOW, &commands, &token),
            SlowClients::begin(slowness, SLOW, &queries, &token),
        );
        let beside = waits(&whole, args).await?;
        let grown = resident(&mut whole)? - before;
        drop(slow);
        let twice = |quiet: &Medians| Aim::AtMost(2.0 * quiet.p99_ms);
        let (read, post) = (format!("{name}, a read, 99 %"), format!("{name}, a post, 99 %"));
        let key = |what: &str| format!("slow/{name}_{what}");
        report.aimed(&key("read_p99_ms"), &read, beside.reads.p99_ms, "ms", twice(&quiet.reads));
        report.aimed(&key("post_p99_ms"), &post, beside.posts.p99_ms, "ms", twice(&quiet.posts));
        let what = format!("{name}, growth of both services");
        report.aimed(&key("rss_mb"), &what, grown, "MB", Aim::AtMost(200.0));
    }
    Ok(())
}

async fn waits(whole: &Whole, args: &Args) -> anyhow::Result<Waits> {
    let (command, query) = (address_of(&whole.command.url())?, address_of(&whole.query.url())?);
    let post = Request::publish(command, &whole.system.token()?, &text(TEXT_BYTES));
    let read = Request::get(query, "/posts?limit=20");
    let (mut reads, mut posts) = (Vec::<Round>::new(), Vec::<Round>::new());
    for _ in 0..args.rounds {
        let (read, post) = tokio::join!(
            closed_loop(query, &read, 200, args.seconds),
            closed_loop(command, &post, 201, args.seconds),
        );
        reads.push(read.context("while reading")?);
        posts.push(post.context("while publishing")?);
    }
    Ok(Waits { reads: Medians::of(&reads), posts: Medians::of(&posts) })
}

/// Megabytes of both services.
fn resident(whole: &mut Whole) -> anyhow::Result<f64> {
    let command = machine::resident_megabytes(whole.command.process().id())?;
    Ok(command + machine::resident_megabytes(whole.query.process().id())?)
}

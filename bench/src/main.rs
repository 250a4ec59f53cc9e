//! Measures what we claim about speed: figures as a table for people and as `bench.json` in the
//! target directory, with the machine and the settings they were taken with. Run by `make bench`.

mod append;
mod pgbench;

mod catch_up;
mod cold;
mod posts;
mod reads;
mod rebuild;
mod slow_clients;
mod visibility;
mod zipf;

mod bare;
mod naive;
mod yardstick;

mod history;
mod lively;
mod prose;
mod random;
mod stories;

mod bare_log;
mod figures;
mod http;
mod load;
mod machine;
mod paced;
mod readers;
mod redis_server;
mod report;
mod requests;
mod schedule;
mod store;
mod system;
mod watching;

use clap::{Parser, Subcommand, ValueEnum};

use crate::bare::BareRoute;
use crate::naive::NaiveRoute;
use crate::report::{Aim, Report};
use crate::system::Whole;
use crate::visibility::Rate;

/// The same as that of the services, which the bare route is to be compared with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Inkstream on this machine.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    /// How many seconds each measurement takes
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,

    /// How often each is repeated; the medians count
    #[arg(long, default_value_t = 3, value_parser = rounds)]
    rounds: usize,

    /// What is measured, separated by commas; unless told, everything
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,

    #[command(subcommand)]
    helper: Option<Helper>,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The store's appends against pgbench
    Append,
    /// Posts published over HTTP
    Posts,
    /// Reads of a hot page against a bare route and a naive one, and of pages that only the log has
    Reads,
    /// Reads of many pages, few of which are read often, with a Redis too small for all
    Zipf,
    /// From a command's answer to a reader
    Visibility,
    /// A projector that comes back
    CatchUp,
    /// Reads and posts beside slow clients of every kind
    SlowClients,
    /// All views made anew from a million events, alone and in front of readers and writers
    Rebuild,
}

/// Processes that this program starts for itself.
#[derive(Debug, Subcommand)]
enum Helper {
    #[command(hide = true)]
    BareRoute(BareRoute),
    #[command(hide = true)]
    NaiveRoute(NaiveRoute),
}

fn rounds(text: &str) -> Result<usize, String> {
    let rounds = text.parse().ok().filter(|rounds| (1..=100).contains(rounds));
    rounds.ok_or_else(|| "expected a number from 1 to 100".to_owned())
}

impl Args {
    fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

// Two, whatever the machine has: the load is to be the same everywhere.
#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match &args.helper {
        Some(Helper::BareRoute(route)) => return route.serve().await,
        Some(Helper::NaiveRoute(route)) => return route.serve().await,
        None => {}
    }
    let mut report = Report::new(machine::describe().await?);
    let measured = measure(&args, &mut report).await;
    // What was measured before something failed took minutes, too.
    report.print();
    report.save()?;
    measured
}

async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    if args.measures(Part::Append) {
        append::measure(args, report).await?;
    }
    if args.measures(Part::Posts) {
        posts::measure_alone(args, report).await?;
    }
    if [Part::Posts, Part::Reads, Part::Visibility].map(|part| args.measures(part)).contains(&true)
    {
        measure_whole(args, report).await?;
    }
    if args.measures(Part::Reads) {
        cold::measure(args, report).await?;
    }
    if args.measures(Part::Zipf) {
        zipf::measure(args, report).await?;
    }
    if args.measures(Part::CatchUp) {
        catch_up::measure(args, report).await?;
    }
    if args.measures(Part::SlowClients) {
        slow_clients::measure(args, report).await?;
    }
    if args.measures(Part::Rebuild) {
        rebuild::measure(args, report).await?;
    }
    Ok(())
}

/// What is measured on the whole system, one after the other on the same, so that its memory at the end is
/// that of one which has worked.
async fn measure_whole(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut whole = Whole::start().await?;
    let mut posts_per_second = None;
    // The half of what can be published is only known after that.
    if args.measures(Part::Posts) || args.measures(Part::Visibility) {
        posts_per_second = Some(posts::measure_whole(&whole, args, report).await?);
    }
    if args.measures(Part::Reads) {
        reads::measure(&whole, args, report).await?;
    }
    if let Some(posts_per_second) = posts_per_second.filter(|_| args.measures(Part::Visibility)) {
        let half = (posts_per_second / 2.0) as u64;
        for rate in [
            Rate { per_second: 200, name: "200", aims: [5.0, 20.0] },
            Rate { per_second: half, name: "half", aims: [10.0, 50.0] },
        ] {
            visibility::measure(&whole, &rate, args, report).await?;
        }
    }
    report.heading("Memory of the services after all that");
    let Whole { command, projector, query, .. } = &mut whole;
    for (name, service) in
        [("command-service", command), ("projector", projector), ("query-service", query)]
    {
        let size = machine::resident_megabytes(service.process().id())?;
        report.aimed(&format!("rss_mb/{name}"), name, size, "MB", Aim::AtMost(100.0));
    }
    Ok(())
}

//! Measures what we claim about speed: figures as a table for people and as `target/bench.json`, with the
//! machine and the settings they were taken with. Run by `make bench`.

mod append;
mod machine;
mod pgbench;
mod report;

use clap::Parser;

use crate::report::Report;

/// Measures Inkstream on this machine.
#[derive(Debug, Parser)]
struct Args {
    /// How many seconds each measurement takes
    #[arg(long, default_value_t = 8)]
    seconds: u32,

    /// How often each is repeated; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new(machine::describe().await?);
    append::measure(&args, &mut report).await?;
    report.print();
    report.save()
}

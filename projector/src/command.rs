//! What an operator says to the generations of the views: build, go back, list, verify, give up, show.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use event_log::{EventLog, Generation, Generations, PoolSettings};
use read_model::{KeySpace, VIEW_VERSION, Views};
use service_runtime::Readiness;

use crate::Config;
use crate::config::{KeepArgs, QuarantineArgs, RebuildArgs, StoreArgs, number};
use crate::halted::Halted;
use crate::rebuild::{self, Rebuild};
use crate::show::{self, Moment};
use crate::verify::Verifier;

/// Large pieces of work wait longer for Redis than readers would.
const REDIS_LIMIT: Duration = Duration::from_secs(10);
const START_PATIENCE: Duration = Duration::from_secs(30);

/// What the process is started for.
#[derive(Debug)]
pub enum Command {
    Project(Box<Config>),
    Rebuild(RebuildCommand),
    Rollback(RollbackCommand),
    Generations(GenerationsCommand),
    Abandon(AbandonCommand),
    Verify(VerifyCommand),
    Show(ShowCommand),
    Quarantine(QuarantineArgs),
}

/// Makes all views anew beside the live ones, verifies them, and switches to them
///
/// Started again after it was killed, it goes on where it was.
#[derive(Debug, Clone, Parser)]
#[command(name = "rebuild")]
pub struct RebuildCommand {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub rebuild: RebuildArgs,
}

/// Goes back to the views that were active before the last switch
#[derive(Debug, Clone, Parser)]
#[command(name = "rollback")]
pub struct RollbackCommand {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub keep: KeepArgs,
}

/// Lists the generations of the views, and how far each has come
#[derive(Debug, Clone, Parser)]
#[command(name = "generations")]
pub struct GenerationsCommand {
    #[command(flatten)]
    pub store: StoreArgs,
}

/// Gives up a generation that no reader is answered from; projectors remove it in small steps
#[derive(Debug, Clone, Parser)]
#[command(name = "abandon")]
pub struct AbandonCommand {
    /// Its number
    pub generation: u32,

    /// Also if it is the active one of another version of the views: the last step of a deployment, once no reader
    /// of that version runs any more
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    pub store: StoreArgs,
}

/// Holds the views against the log, and names every difference; exits with 1 if there are any
#[derive(Debug, Clone, Parser)]
#[command(name = "verify")]
pub struct VerifyCommand {
    #[command(flatten)]
    pub store: StoreArgs,

    /// Which generation; the active one unless it is named
    #[arg(long)]
    pub generation: Option<u32>,

    /// So many pages, picked at random, instead of all pages and all lists
    #[arg(long, value_parser = number(1..=10_000_000))]
    pub sample: Option<u32>,

    /// Fold anew what differs and, without a sample, take out of the lists what does not belong there
    #[arg(long)]
    pub repair: bool,

    /// How much of the time it works, in percent; the rest is left to readers and writers
    #[arg(
        long,
        env = "INKSTREAM_REBUILD_SHARE",
        default_value_t = 50,
        value_parser = clap::value_parser!(u8).range(1..=100),
    )]
    pub share: u8,
}

/// Prints a page as it is, or was at some time, folded from the log
#[derive(Debug, Clone, Parser)]
#[command(name = "show")]
pub struct ShowCommand {
    /// A slug that the post has or had, or its id
    pub post: String,

    /// A position of the log, or a time such as 2026-05-04T03:02:01Z
    #[arg(long)]
    pub at: Option<Moment>,

    #[command(flatten)]
    pub store: StoreArgs,
}

impl Command {
    /// Reads the command line and the environment; ends the process if they cannot be read.
    pub fn parse() -> Self {
        Self::try_parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    pub fn try_parse_from<T: Into<std::ffi::OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        // A derived enum of subcommands would either hide the settings of the projector behind one, or demand
        // them of all.
        let matches = Config::command()
            .subcommands([
                RebuildCommand::command(),
                RollbackCommand::command(),
                GenerationsCommand::command(),
                AbandonCommand::command(),
                VerifyCommand::command(),
                ShowCommand::command(),
                QuarantineArgs::command(),
            ])
            .subcommand_negates_reqs(true)
            // The settings of one command say nothing to another, and would be lost without a word.
            .args_conflicts_with_subcommands(true)
            .try_get_matches_from(words)?;
        Ok(match matches.subcommand() {
            Some(("rebuild", of_it)) => Self::Rebuild(RebuildCommand::from_arg_matches(of_it)?),
            Some(("rollback", of_it)) => Self::Rollback(RollbackCommand::from_arg_matches(of_it)?),
            Some(("generations", of_it)) => {
                Self::Generations(GenerationsCommand::from_arg_matches(of_it)?)
            }
            Some(("abandon", of_it)) => Self::Abandon(AbandonCommand::from_arg_matches(of_it)?),
            Some(("verify", of_it)) => Self::Verify(VerifyCommand::from_arg_matches(of_it)?),
            Some(("quarantine", of_it)) => {
                Self::Quarantine(QuarantineArgs::from_arg_matches(of_it)?)
            }
            Some((_show, of_it)) => Self::Show(ShowCommand::from_arg_matches(of_it)?),
            None => Self::Project(Box::new(Config::from_arg_matches(&matches)?)),
        })
    }
}

/// The log, the views and the list of their generations.
struct Store {
    log: EventLog,
    views: Views,
    generations: Generations,
}

impl StoreArgs {
    async fn open(&self, connections: u32) -> anyhow::Result<Store> {
        let settings = PoolSettings {
            name: "projector",
            connections,
            acquire_limit: Duration::from_secs(5),
            options: &[],
            for_scans: true,
        };
        let pool = event_log::pool(self.database_url.reveal(), settings)?;
        let store = event_log::open_within(START_PATIENCE, &pool, |_| {}).await?;
        let keys = KeySpace::new(&self.redis_prefix).context("INKSTREAM_REDIS_PREFIX")?;
        let views = Views::new(self.redis_url.reveal(), keys, store.partitions, REDIS_LIMIT)
            .context("INKSTREAM_REDIS_URL cannot be used")?;
        let generations = Generations::new(pool.clone());
        Ok(Store { log: EventLog::new(pool, store.partitions), views, generations })
    }
}

impl RebuildCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        let connections = self.rebuild.lanes + 3;
        let Store { log, views, generations } = self.store.open(connections).await?;
        let halted = Halted::new(Readiness::new().check("folds"));
        let holder = rebuild::holder();
        let rebuild = Rebuild { log, views, generations, args: self.rebuild, halted, holder };
        let rebuilt = rebuild.run().await?;
        let seconds = rebuilt.took.as_secs_f64();
        say(&format!(
            "Generation {} is active: {} events in {seconds:.1} s. `projector rollback` leads back.",
            rebuilt.generation, rebuilt.events
        ))
    }
}

impl RollbackCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        let Store { log, views, generations } = self.store.open(2).await?;
        let switched = rebuild::rollback(&log, &generations, &views, self.keep.keep).await?;
        let from = switched.from.map_or("nothing".to_owned(), |from| format!("generation {from}"));
        say(&format!("From {from} back to generation {} in {:.1?}", switched.to, switched.took))
    }
}

impl GenerationsCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        let Store { log, views, generations } = self.store.open(2).await?;
        say(rebuild::list::table(&log, &generations, &views).await?.trim_end())
    }
}

impl AbandonCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        let Store { generations, .. } = self.store.open(1).await?;
        if !generations.abandon(self.generation, self.force).await? {
            bail!(
                "generation {} is active, or there is none such; one of another version, of which no reader runs any more, is given up with --force",
                self.generation
            );
        }
        say(&format!("Generation {} is given up", self.generation))
    }
}

impl VerifyCommand {
    /// `false` if there are differences, or nothing that could be compared.
    pub async fn run(self) -> anyhow::Result<bool> {
        let Store { log, views, generations } = self.store.open(3).await?;
        let generation = match self.generation {
            Some(number) => followed(&generations, number).await?,
            None => {
                let active = generations.active(VIEW_VERSION).await?;
                active.context("no generation is active")?.0
            }
        };
        let verifier = Verifier {
            repair: self.repair,
            share: self.share,
            tell: |found| say(&found.to_string()),
            ..Verifier::new(log, views.of_generation(generation))
        };
        let report = match self.sample {
            Some(pages) => verifier.some(pages).await?,
            None => verifier.all().await?,
        };
        for partition in &report.filling {
            say(&format!(
                "partition {partition} is being filled: what it lacks of older pages is no difference yet"
            ))?;
        }
        say(&format!(
            "Generation {generation}: {} pages and {} lists compared, {} differences, {} pages set aside, {} to be filled yet, {} repaired, {} could not be repaired",
            report.pages,
            report.lists,
            report.count,
            report.quarantined,
            report.unfilled,
            report.repaired,
            report.unrepaired
        ))?;
        Ok(report.is_good())
    }
}

/// A generation that this program keeps up to date. Any other would seem wrong in every place, and be damaged by a
/// repair.
async fn followed(generations: &Generations, number: u32) -> anyhow::Result<u32> {
    let named = generations.find(number).await?;
    let named = named.with_context(|| format!("there is no generation {number}"))?;
    let Generation { view_version, state, .. } = named;
    ensure!(
        view_version == VIEW_VERSION,
        "generation {number} is of version {view_version} of the views, another version than this program's"
    );
    ensure!(state.is_followed(), "generation {number} does not follow the log: it is {state}");
    Ok(number)
}

impl ShowCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        let Store { log, .. } = self.store.open(1).await?;
        let page = show::page(&log, &self.post, self.at).await?;
        say(&serde_json::to_string_pretty(&page)?)
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}").context("while printing")
}

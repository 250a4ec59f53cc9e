//! Views made anew beside the live ones: folded from the log as of its head, brought up to date, verified, and
//! then switched to. Readers and writers notice nothing of it but load.
//!
//! What is written is known in Redis, beside the rows it vouches for; who writes, and which generation readers are
//! answered from, in Postgres. So a rebuild that was killed is gone on with by whoever starts it again.

mod build;
mod follow;
pub(crate) mod followed;
pub(crate) mod keeper;
pub mod list;
mod pace;
mod page;
mod progress;
mod removal;
mod switch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use event_log::{EventLog, Generation, GenerationLease, GenerationState, Generations};
use read_model::{VIEW_VERSION, Views, ViewsError};

use crate::config::RebuildArgs;
use crate::halted::Halted;
use crate::verify::Verifier;
use follow::{catch_up, make_current};
pub(crate) use pace::Pace;
pub(crate) use page::Pages;
pub(crate) use progress::Progress;
pub use switch::{Switched, rollback};

/// How long a builder that does not stir counts as alive.
const LEASE: Duration = Duration::from_secs(5);
/// How often it stirs.
const RENEW: Duration = Duration::from_secs(1);
/// How long it takes until every projector has heard of a generation that is to be followed.
const NOTICED: Duration = Duration::from_millis(2500);

/// How long we wait after an error. It may be over then.
const AFTER_AN_ERROR: Duration = Duration::from_millis(500);

/// Somebody builds a generation already.
#[derive(Debug, thiserror::Error)]
#[error("generation {number} is being built by {holder}")]
pub struct Busy {
    pub number: u32,
    pub holder: String,
}

/// The making of a generation.
#[derive(Debug, Clone)]
pub struct Rebuild {
    pub log: EventLog,
    pub views: Views,
    pub generations: Generations,
    pub args: RebuildArgs,
    pub halted: Halted,
    /// How we are called where others look for who builds.
    pub holder: String,
}

/// How a rebuild went.
#[derive(Debug, Clone, Copy)]
pub struct Rebuilt {
    pub generation: u32,
    /// Those up to the position as of which it was folded.
    pub events: u64,
    pub took: Duration,
}

impl Rebuild {
    /// Builds a generation, or goes on with one that was begun, and switches to it.
    pub async fn run(&self) -> anyhow::Result<Rebuilt> {
        let begun = Instant::now();
        let lease = self.obtain().await?;
        self.finish(&lease, begun).await
    }

    /// The same where readers of our version have no generation yet. `None`: somebody else sees to that, or has.
    pub(crate) async fn run_first(&self) -> anyhow::Result<Option<Rebuilt>> {
        let begun = Instant::now();
        let lease = match self.growing().await? {
            Some(growing) => self.take(growing.number).await?,
            None => self.begin(true).await?,
        };
        match lease {
            Some(lease) => self.finish(&lease, begun).await.map(Some),
            None => Ok(None),
        }
    }

    async fn finish(&self, lease: &GenerationLease, begun: Instant) -> anyhow::Result<Rebuilt> {
        let number = lease.number;
        let progress = Arc::new(Progress::new("rebuild"));
        let outcome = tokio::select! {
            outcome = self.go_on_through_outages(lease, &progress) => outcome,
            lost = keep(&self.generations, lease, || progress.done()) => lost.map(|()| 0),
        };
        progress.end();
        if outcome.is_err() {
            // Whoever tries again need not wait.
            let _ = self.generations.give_back(lease).await;
        }
        let events = outcome.with_context(|| format!("generation {number} is not finished"))?;
        Ok(Rebuilt { generation: number, events, took: begun.elapsed() })
    }

    /// A generation to build: the one that was begun, if its builder has gone, or a new one.
    async fn obtain(&self) -> anyhow::Result<GenerationLease> {
        let deadline = Instant::now() + LEASE + RENEW;
        let mut busy: Option<Busy> = None;
        loop {
            let Some(growing) = self.growing().await? else {
                // What was asked for may have been done meanwhile.
                if let Some(Busy { number, holder }) = busy.take()
                    && self.has_been_active(number).await?
                {
                    bail!("generation {number} has just been built by {holder}");
                }
                match self.begin(false).await? {
                    Some(lease) => return Ok(lease),
                    None => continue,
                }
            };
            let number = growing.number;
            if let Some(lease) = self.take(number).await? {
                return Ok(lease);
            }
            let holder = growing.holder.unwrap_or_else(|| "another process".to_owned());
            let found = Busy { number, holder };
            // A builder that was killed holds it until its time is over. One that lives makes that longer.
            if Instant::now() > deadline {
                return Err(found.into());
            }
            if busy.is_none() {
                tracing::info!(
                    generation = found.number,
                    holder = found.holder,
                    "waiting for another builder"
                );
            }
            busy = Some(found);
            tokio::time::sleep(RENEW / 4).await;
        }
    }

    /// The generation of our version that is being built, by whomever.
    async fn growing(&self) -> anyhow::Result<Option<Generation>> {
        let mut all = self.generations.all().await?.into_iter();
        Ok(all.find(|generation| {
            generation.view_version == VIEW_VERSION
                && matches!(
                    generation.state,
                    GenerationState::Building | GenerationState::Following
                )
        }))
    }

    async fn has_been_active(&self, number: u32) -> anyhow::Result<bool> {
        let found = self.generations.find(number).await?;
        Ok(found.is_some_and(|generation| {
            matches!(generation.state, GenerationState::Active | GenerationState::Kept)
        }))
    }

    async fn begin(&self, only_first: bool) -> anyhow::Result<Option<GenerationLease>> {
        let head = self.log.head().await?;
        let plan = (head, build::parts(head, self.args.part_events));
        let begun = self.generations.begin(VIEW_VERSION, only_first, plan, &self.holder, LEASE);
        let lease = begun.await?;
        if let Some(GenerationLease { number, .. }) = lease {
            tracing::info!(generation = number, position = %head, "Building generation {number} as of position {head}");
        }
        Ok(lease)
    }

    async fn take(&self, number: u32) -> anyhow::Result<Option<GenerationLease>> {
        let lease = self.generations.take(number, &self.holder, LEASE).await?;
        if lease.is_some() {
            tracing::info!(generation = number, "Going on with generation {number}");
        }
        Ok(lease)
    }

    /// Servers that are away come back. What was done until then is known.
    async fn go_on_through_outages(
        &self,
        lease: &GenerationLease,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<u64> {
        loop {
            match self.go_on(lease, progress).await {
                Err(error) if is_an_outage(&error) => {
                    tracing::warn!("Generation {} waits: {error:#}", lease.number);
                    tokio::time::sleep(AFTER_AN_ERROR).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn go_on(
        &self,
        lease: &GenerationLease,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<u64> {
        let generation = self.generation(lease.number).await?;
        if generation.state == GenerationState::Active {
            // We have switched to it and not heard of it.
            return Ok(generation.head.0);
        }
        let views = self.views.of_generation(generation.number);
        let mut pace = Pace::new(self.args.share);
        let number = generation.number;
        let built = if generation.state == GenerationState::Building {
            Some(self.build(&generation, &views, progress).await?)
        } else {
            None
        };
        progress.end();
        pace.begin();
        catch_up(&self.log, &views, &self.halted, &mut pace).await?;
        if let Some(marks) = built {
            ensure!(self.generations.follow(lease).await?, "it was given up");
            views.forget_built(&marks).await?;
        }
        // From now on every projector writes it, once it has noticed.
        let noticed = tokio::time::Instant::now() + NOTICED;
        let share = self.args.share;
        let verifier = Verifier { share, ..Verifier::new(self.log.clone(), views.clone()) };
        let report = verifier.sample(self.args.verify_pages).await?;
        for difference in &report.differences {
            tracing::error!("{difference}");
        }
        ensure!(
            report.count == 0,
            "it differs from the log in {} places; `projector verify --generation {number}` tells of all",
            report.count,
        );
        tokio::time::sleep_until(noticed).await;
        self.is_of_this_life(&generation).await?;
        pace.begin();
        make_current(&self.log, &views, &self.halted, &mut pace).await?;
        let to = switch::To::Built(lease);
        switch::switch(&self.generations, &self.views, to, self.args.keep.keep).await?;
        Ok(generation.head.0)
    }

    async fn generation(&self, number: u32) -> anyhow::Result<Generation> {
        let found = self.generations.find(number).await?;
        found.with_context(|| format!("there is no generation {number}"))
    }

    /// Positions of an earlier life may have been given to other events since.
    async fn is_of_this_life(&self, generation: &Generation) -> anyhow::Result<()> {
        if self.log.incarnation().await? == generation.incarnation {
            return Ok(());
        }
        self.generations.abandon(generation.number, false).await?;
        bail!("the store has begun a new incarnation meanwhile; start again")
    }
}

/// Whether it is over once a server answers again. Of Postgres no long one is outlived: the lease ends.
fn is_an_outage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<tokio::time::error::Elapsed>()
            || matches!(cause.downcast_ref(), Some(ViewsError::Redis(_)))
            || matches!(cause.downcast_ref(), Some(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut))
    })
}

/// Keeps the right to build or remove a generation, until it is lost.
async fn keep(
    generations: &Generations,
    lease: &GenerationLease,
    done: impl Fn() -> Option<(u32, u64)>,
) -> anyhow::Result<()> {
    let mut renewed = Instant::now();
    loop {
        tokio::time::sleep(RENEW).await;
        match generations.renew(lease, done()).await {
            Ok(true) => renewed = Instant::now(),
            Ok(false) => bail!("it was given up, or another process has taken it over"),
            Err(error) if renewed.elapsed() > LEASE => return Err(error),
            Err(error) => tracing::warn!("The lease could not be renewed: {error:#}"),
        }
    }
}

/// What we are called where others look for who builds.
pub(crate) fn holder() -> String {
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    format!("process {} on {}", std::process::id(), host.trim())
}

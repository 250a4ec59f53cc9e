//! Which generation of the views readers are answered from: that of a row in Postgres, of which Redis has a
//! copy.

use std::time::Duration;

use event_log::Generations;
use read_model::{VIEW_VERSION, Views};
use service_runtime::progress;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::page_cache::PageCache;

/// How often Redis is asked: so long a switch takes to reach all readers. Until then each is answered from
/// either, and both follow the log.
const PAUSE: Duration = Duration::from_millis(50);
/// How often Postgres is, in whose hands it is: once in so many times.
const EVERY: u32 = 20;
const LIMIT: Duration = Duration::from_secs(1);

/// Has all clones of the views change over.
#[derive(Debug)]
pub(crate) struct Follow {
    views: Views,
    memory: PageCache,
    generations: Generations,
    /// The latest switch that was heard of. A copy in Redis may be older than what Postgres has said.
    turn: u64,
}

impl Follow {
    pub(crate) fn new(views: Views, memory: PageCache, generations: Generations) -> Self {
        Self { views, memory, generations, turn: 0 }
    }

    /// Asks Postgres. Where no generation of our version is active, readers are answered from the log.
    pub(crate) async fn ask_postgres(&mut self) {
        match timeout(LIMIT, self.generations.active(VIEW_VERSION)).await {
            // Also where this is an earlier switch than the last that we heard of: a store that came back from
            // a backup counts them anew.
            Ok(Ok(Some(active))) => self.believe(active),
            Ok(Ok(None)) => {}
            // Others say loudly that it does not answer.
            Ok(Err(error)) => tracing::debug!("The active generation is not known: {error:#}"),
            Err(_elapsed) => tracing::debug!("The active generation is not known in time"),
        }
    }

    async fn ask_redis(&mut self) {
        if let Ok(Ok(Some(active))) = timeout(LIMIT, self.views.active_generation()).await
            && active.1 > self.turn
        {
            self.believe(active);
        }
    }

    fn believe(&mut self, (generation, turn): (u32, u64)) {
        self.turn = turn;
        if self.views.generation() != generation {
            tracing::info!(generation, "Readers are answered from generation {generation}");
            self.views.switch_to(generation);
            // In this order: what is read from here on is of the new one, and whatever was begun before this is
            // not kept as fresh.
            self.memory.end_all();
        }
        metrics::gauge!("active_generation").set(self.views.generation());
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut every = interval(PAUSE);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0;
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            progress::tick();
            let ask = async {
                match count % EVERY {
                    0 => self.ask_postgres().await,
                    _ => self.ask_redis().await,
                }
            };
            stop.run_until_cancelled(ask).await;
            count += 1;
        }
        Ok(())
    }
}

//! A few pages of the active generation held against the log all the time: what goes wrong in Redis, or in us, is
//! found before a reader does.

use std::time::Duration;

use event_log::{EventLog, Generations};
use read_model::{VIEW_VERSION, Views};
use service_runtime::progress;
use tokio_util::sync::CancellationToken;

use super::{Found, Verifier};
use crate::metrics;

const MINUTE: Duration = Duration::from_mins(1);
/// How often in a minute at most.
const A_MINUTE: u32 = 6;

#[derive(Debug)]
pub(crate) struct Trickle {
    pub log: EventLog,
    pub views: Views,
    pub generations: Generations,
    /// How many pages in a minute; zero for none.
    pub pages_a_minute: u32,
}

impl Trickle {
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        if self.pages_a_minute == 0 {
            progress::idle(stop.cancelled()).await;
            return Ok(());
        }
        let pages = self.pages_a_minute.div_ceil(A_MINUTE);
        let pause = MINUTE * pages / self.pages_a_minute;
        let sleep = || tokio::time::sleep(pause);
        while progress::idle(stop.run_until_cancelled(sleep())).await.is_some() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.look(pages)).await {
                // Others say loudly what does not answer.
                tracing::debug!("Pages could not be verified: {error:#}");
            }
        }
        Ok(())
    }

    async fn look(&self, pages: u32) -> anyhow::Result<()> {
        let Some((active, _)) = self.generations.active(VIEW_VERSION).await? else { return Ok(()) };
        progress::tick();
        let verifier = Verifier {
            repair: true,
            tell,
            ..Verifier::new(self.log.clone(), self.views.of_generation(active))
        };
        let report = verifier.sample(pages).await?;
        ::metrics::counter!(metrics::VERIFIED).increment(report.pages);
        ::metrics::counter!(metrics::DIFFERENCES).increment(report.wrong);
        Ok(())
    }
}

fn tell(found: &Found) -> anyhow::Result<()> {
    // A partition that was lost is begun anew within a second, and whoever does that says so.
    if found.post_id.is_some() {
        tracing::error!("The views differ from the log: {found}");
    }
    Ok(())
}

//! Pages folded one after another from a scan of the log: only one of them is in memory.

use anyhow::Result;
use domain::post::PostEvent;
use domain::{Position, PostId, RawEvent, Recorded, StoredEvent as _};
use event_log::{EventLog, IdRange, Scan, Unreadable};
use read_model::{Fold, Row, fold_caught};
use service_runtime::progress;

/// A page as the log has it, up to the first event that cannot be folded.
#[derive(Debug)]
pub(crate) struct Page {
    pub id: PostId,
    /// `None` if the first of its events is the one that cannot.
    pub row: Option<Row>,
    pub unreadable: Option<Unreadable>,
}

/// Pages in the order of their ids.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    log: &'a EventLog,
    fold: Fold,
    scan: Scan<'a>,
    /// The first event of the next page.
    ahead: Option<Recorded<RawEvent>>,
    begun: bool,
    /// How many events were read.
    pub events: u64,
}

impl<'a> Pages<'a> {
    /// Those of a range, as of a position.
    pub(crate) fn new(log: &'a EventLog, fold: Fold, range: &IdRange, head: Position) -> Self {
        let scan = log.scan(range, head);
        Self { log, fold, scan, ahead: None, begun: false, events: 0 }
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Page>> {
        loop {
            if !self.begun {
                self.begun = true;
                self.ahead = self.read().await?;
            }
            let Some(first) = self.ahead.take() else { return Ok(None) };
            let stream = first.stream_id.clone();
            let id: Option<PostId> = stream.parse().ok();
            let mut page = id.map(|id| Page { id, row: None, unreadable: None });
            let mut event = Some(first);
            while let Some(this) = event.take() {
                if this.stream_id != stream {
                    self.ahead = Some(this);
                    break;
                }
                if let Some(page) = &mut page {
                    page.fold(this, self.fold, self.log).await?;
                }
                event = self.read().await?;
            }
            // A stream of posts whose id is no post's was not written by us.
            if page.is_some() {
                return Ok(page);
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Recorded<RawEvent>>> {
        progress::tick();
        let event = self.scan.next().await?;
        self.events += u64::from(event.is_some());
        Ok(event)
    }
}

impl Page {
    async fn fold(&mut self, event: Recorded<RawEvent>, fold: Fold, log: &EventLog) -> Result<()> {
        if self.unreadable.is_some() {
            return Ok(());
        }
        let (position, sequence, stream_id) =
            (event.position, event.sequence, event.stream_id.clone());
        let folded = match PostEvent::decode(event) {
            Ok(event) => fold_caught(fold, &mut self.row, &event, self.id)
                .map_err(|panic| Unreadable { stream_id, position, reason: panic.to_string() }),
            Err(error) => Err(Unreadable::undecodable(stream_id, position, &error)),
        };
        match folded {
            Ok(()) => {}
            Err(_) if log.is_discarded(position).await? => {
                self.row = Some(Row::pass_over(self.row.take(), position, sequence));
            }
            Err(end) => self.unreadable = Some(end),
        }
        Ok(())
    }

    /// About how much memory it takes.
    pub(crate) fn weight(&self) -> usize {
        let page = self.row.as_ref().and_then(|row| row.page.as_ref());
        500 + page.map_or(0, |page| page.content.len())
    }
}

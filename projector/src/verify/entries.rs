//! The lists for what should not be in them: entries of posts that have no place there, and posts that the log
//! has never heard of.

use std::collections::BTreeSet;

use anyhow::Context;
use domain::{Partition, Position, PostId};
use read_model::{Difference, Entry};

use super::{Found, Report, Verifier};
use crate::rebuild::Pace;

impl Verifier {
    /// Goes through all lists of all partitions.
    pub(super) async fn entries(&self, report: &mut Report) -> anyhow::Result<()> {
        let mut pace = Pace::new(self.share);
        for partition in self.log.partitions().all() {
            let mut cursor = 0;
            loop {
                let names = self.views.some_list_names(partition, cursor).await;
                let (next, names) = names.context("reading lists")?;
                for list in names {
                    self.list(partition, &list, &mut pace, report).await?;
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
            self.unknown(partition, &mut pace, report).await?;
        }
        Ok(())
    }

    async fn list(
        &self,
        partition: Partition,
        list: &str,
        pace: &mut Pace,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut cursor = 0;
        loop {
            let strays = self.views.strays(partition, list, cursor).await;
            let (next, strays) = strays.context("reading a list")?;
            for entry in strays {
                self.stray(partition, entry, report).await?;
            }
            pace.rest().await;
            cursor = next;
            if cursor == 0 {
                report.lists += 1;
                return Ok(());
            }
        }
    }

    async fn stray(
        &self,
        partition: Partition,
        entry: Entry,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        // One that has a place, but a score, was seen beside its post.
        if !self.views.is_stray(partition, &entry, self.repair).await.context("reading a list")? {
            return Ok(());
        }
        report.repaired += u64::from(self.repair);
        let difference = Difference {
            key: self.views.list_key(partition, &entry.list),
            field: entry.place.clone(),
            found: Some(format!("at {}", entry.score)),
            expected: None,
        };
        self.report(partition, difference, report).await
    }

    /// Posts that a partition knows and the log does not.
    async fn unknown(
        &self,
        partition: Partition,
        pace: &mut Pace,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let mut cursor = 0;
        loop {
            let (next, ids) =
                self.views.listed_posts(partition, cursor).await.context("reading the posts")?;
            let known: BTreeSet<PostId> = self.log.known_pages(&ids).await?.into_iter().collect();
            for id in ids.into_iter().filter(|id| !known.contains(id)) {
                let difference = Difference {
                    key: self.views.list_key(partition, "*"),
                    field: id.to_string(),
                    found: Some("a post".to_owned()),
                    expected: None,
                };
                self.report(partition, difference, report).await?;
                if self.repair {
                    let gone = self.views.forget(partition, id).await;
                    report.note_repair(gone.context("forgetting a post")?);
                }
            }
            pace.rest().await;
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    async fn report(
        &self,
        partition: Partition,
        difference: Difference,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let marks = self.views.watermarks().await.context("reading the watermarks")?;
        let mark = marks.get(usize::from(partition.0)).and_then(Option::as_ref);
        let views = mark.map_or(Position::ZERO, |mark| mark.point.position);
        let log = self.log.head().await?;
        self.found(Found { difference, post_id: None, views, log }, report)
    }
}

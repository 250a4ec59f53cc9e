//! What a verification found: counted, and told as it is found, so that a generation that is wrong all over takes no
//! more memory than one that is not.

use std::collections::BTreeSet;
use std::fmt;

use domain::{Partition, Position, PostId};
use read_model::{Difference, Watermark};

use super::Verifier;

/// So many differences are remembered.
const KEPT: usize = 100;
/// So many characters of a value.
const SHOWN: usize = 200;

/// What a verification found.
#[derive(Debug, Default)]
pub struct Report {
    pub pages: u64,
    /// Pages that are set aside: of these nothing can be said.
    pub quarantined: u64,
    /// Pages that their partitions have not been filled with yet: of these only what is there was compared.
    pub unfilled: u64,
    /// The partitions of those.
    pub filling: BTreeSet<Partition>,
    /// Parts of lists, one for each partition.
    pub lists: u64,
    /// How many differences there are, in all.
    pub count: u64,
    /// The first of them.
    pub differences: Vec<Found>,
    /// Pages that differ.
    pub wrong: u64,
    pub repaired: u64,
    /// What was to be repaired and could not be.
    pub unrepaired: u64,
    /// Partitions of which nothing can be said, each of them a difference.
    pub(super) lost: BTreeSet<Partition>,
}

/// A difference, and how far the two sides had come when it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub difference: Difference,
    /// The page that it is about.
    pub post_id: Option<PostId>,
    /// The watermark of its partition.
    pub views: Position,
    /// As of which position the page was folded.
    pub log: Position,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { key, field, found, expected } = &self.difference;
        let shown = |value: &Option<String>| match value {
            Some(value) => format!("`{value}`"),
            None => "nothing".to_owned(),
        };
        write!(
            f,
            "{key} {field}: {} in Redis (at {}), {} by the log (at {})",
            shown(found),
            self.views,
            shown(expected),
            self.log
        )
    }
}

impl Report {
    /// Whether nothing differs, though something could be compared.
    pub fn is_good(&self) -> bool {
        let nothing_was_there = self.unfilled > 0 && self.unfilled + self.quarantined >= self.pages;
        self.count == 0 && !nothing_was_there
    }

    pub(super) fn note_repair(&mut self, repaired: bool) {
        self.repaired += u64::from(repaired);
        self.unrepaired += u64::from(!repaired);
    }
}

impl Verifier {
    /// Tells of a difference, and counts it.
    pub(super) fn found(&self, mut found: Found, report: &mut Report) -> anyhow::Result<()> {
        let Difference { found: is, expected, .. } = &mut found.difference;
        for value in [is, expected].into_iter().flatten() {
            cut(value);
        }
        (self.tell)(&found)?;
        report.count += 1;
        if report.differences.len() < KEPT {
            report.differences.push(found);
        }
        Ok(())
    }

    /// Notes, once, that a partition's watermark vouches for nothing.
    pub(super) fn lost(
        &self,
        partition: Partition,
        mark: Option<&Watermark>,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        if !report.lost.insert(partition) {
            return Ok(());
        }
        let difference = Difference {
            key: format!("partition {partition}"),
            field: "watermark".to_owned(),
            found: mark.map(|mark| format!("{} of incarnation {}", mark.epoch, mark.incarnation)),
            expected: Some("one of this version and this life of the log".to_owned()),
        };
        let views = mark.map(|mark| mark.point.position).unwrap_or_default();
        self.found(Found { difference, post_id: None, views, log: views }, report)
    }
}

fn cut(value: &mut String) {
    if let Some((end, _)) = value.char_indices().nth(SHOWN) {
        value.truncate(end);
        value.push('…');
    }
}

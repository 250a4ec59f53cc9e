//! Where each view lies in Redis.
//!
//! All keys of a partition carry the same hash tag, so that one slot, and thus one script, holds its rows,
//! its lists and the watermark that vouches for them.

use std::sync::Arc;

use domain::{Partition, PostId, Slug};

/// The keys of one store's views: they all begin with a prefix. What belongs to a partition belongs to a
/// generation too, which is one complete set of views beside others.
#[derive(Debug, Clone)]
pub struct KeySpace {
    prefix: Arc<str>,
    generation: u32,
}

/// The generation that a store begins with.
pub const FIRST_GENERATION: u32 = 1;

/// A prefix that would break the hash tag.
#[derive(Debug, thiserror::Error)]
#[error("the key prefix `{0}` must consist of letters, digits and the characters . _ - :")]
pub struct PrefixError(String);

impl KeySpace {
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        if prefix.is_empty() || !prefix.chars().all(allowed) {
            return Err(PrefixError(prefix.to_owned()));
        }
        Ok(Self { prefix: prefix.into(), generation: FIRST_GENERATION })
    }

    /// The same keys in another generation.
    pub fn of_generation(&self, generation: u32) -> Self {
        Self { prefix: Arc::clone(&self.prefix), generation }
    }

    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// A hash: how far the views of a partition have come, below which position they are yet to be filled, and while
    /// they are built, which batch of each part was written last.
    pub(crate) fn watermark(&self, partition: Partition) -> String {
        format!("{}watermark", self.of(partition))
    }

    /// A hash: one post.
    pub(crate) fn post(&self, partition: Partition, post_id: PostId) -> String {
        format!("{}post:{post_id}", self.of(partition))
    }

    /// A hash: for each post that was ever in a list, which lists it is in, where in each, and as of which
    /// position.
    pub(crate) fn listed(&self, partition: Partition) -> String {
        format!("{}listed", self.of(partition))
    }

    /// A set: the names of the lists that there are.
    pub(crate) fn lists(&self, partition: Partition) -> String {
        format!("{}lists", self.of(partition))
    }

    /// What the key of each list, a sorted set, begins with; its name follows.
    pub(crate) fn list_prefix(&self, partition: Partition) -> String {
        format!("{}list:", self.of(partition))
    }

    /// A hash: for each quarantined post, the position of the event that cannot be folded.
    pub(crate) fn quarantined(&self, partition: Partition) -> String {
        format!("{}quarantined", self.of(partition))
    }

    /// No key at all, and there never is one: a script that names it is refused as a whole while the slot moves
    /// from one node of a cluster to another. It also touches lists that it cannot name beforehand, and would
    /// otherwise fail half-way at the first that is gone.
    pub(crate) fn never(&self, partition: Partition) -> String {
        format!("{}never", self.of(partition))
    }

    /// A string: one bit for each part of a rebuild that has been written, as far as this partition is concerned.
    /// It lies in the slot of the rows it vouches for and is named by their epoch, so it is forgotten with them.
    pub(crate) fn built(&self, partition: Partition, epoch: &str) -> String {
        format!("{}built:{epoch}", self.of(partition))
    }

    /// A string: which generation readers of a version of the views are answered from, behind the number of
    /// the switch to it. A copy of a row in Postgres, and no part of any generation.
    pub(crate) fn active_generation(&self, view_version: u32) -> String {
        format!("{}:active:v{view_version}", self.prefix)
    }

    /// A channel: what has changed, for those who keep copies.
    pub(crate) fn announcements(&self) -> String {
        format!("{}:changed", self.prefix)
    }

    /// A string: the post that a slug names, and as of which position. No part of any partition, since a slug does not tell its own:
    /// a copy of a row of the log's table of slugs, which never changes within an incarnation.
    pub(crate) fn slug(&self, incarnation: u32, slug: &Slug) -> String {
        format!("{}:slug:{incarnation}:{slug}", self.prefix)
    }

    fn of(&self, partition: Partition) -> String {
        format!("{{{}:g{}:{partition}}}:", self.prefix, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_partition_has_its_hash_tag() {
        let keys = KeySpace::new("inkstream").unwrap();
        let id = PostId(uuid::Uuid::nil());
        for key in [
            keys.watermark(Partition(3)),
            keys.post(Partition(3), id),
            keys.listed(Partition(3)),
            keys.lists(Partition(3)),
            keys.list_prefix(Partition(3)),
            keys.quarantined(Partition(3)),
            keys.never(Partition(3)),
            keys.built(Partition(3), "v1-x"),
        ] {
            assert!(key.starts_with("{inkstream:g1:3}:"), "{key}");
        }
    }

    #[test]
    fn generations_share_no_key_of_a_partition() {
        let keys = KeySpace::new("inkstream").unwrap();
        let (first, second) = (keys.of_generation(1), keys.of_generation(2));
        assert_ne!(first.watermark(Partition(3)), second.watermark(Partition(3)));
        assert_eq!(first.announcements(), second.announcements());
    }

    #[test]
    fn a_prefix_must_not_break_the_hash_tag() {
        assert!(KeySpace::new("a{b}").is_err());
        assert!(KeySpace::new("").is_err());
    }
}

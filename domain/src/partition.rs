//! Which part of the store an aggregate belongs to.

use std::fmt;

/// One of the equal parts of the store: a column of `events`, a partition of the Kafka topic and the hash
/// tag of everything in Redis that is derived from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many partitions the store has; chosen when it is created, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitions(u16);

impl Partitions {
    /// `None` for zero: a store has at least one.
    pub fn new(count: u16) -> Option<Self> {
        (count > 0).then_some(Self(count))
    }

    pub fn count(self) -> u16 {
        self.0
    }

    pub fn all(self) -> impl Iterator<Item = Partition> + Clone {
        (0..self.0).map(Partition)
    }

    /// The partition of an aggregate: FNV-1a, 64 bits
    /// (<http://www.isthe.com/chongo/tech/comp/fnv/>), of the part of its id before the first `:`, its
    /// halves folded together, modulo the number of partitions.
    pub fn of(self, aggregate_id: &str) -> Partition {
        let page = aggregate_id.split(':').next().unwrap_or(aggregate_id);
        let hash = fnv1a_64(page.as_bytes());
        let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
        #[expect(clippy::cast_possible_truncation, reason = "a remainder below a u16 fits one")]
        let partition = (folded % u64::from(self.0)) as u16;
        Partition(partition)
    }
}

fn fnv1a_64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn an_id_keeps_its_partition_for_ever() {
        // A stored value: were it to change, existing stores could not be read any more.
        let sixteen = Partitions::new(16).unwrap();
        assert_eq!(sixteen.of("0192f0c1-2d3e-7f4a-8b5c-6d7e8f901234"), Partition(10));
    }

    #[test]
    fn what_changes_one_page_shares_a_partition() {
        let sixteen = Partitions::new(16).unwrap();
        assert_eq!(sixteen.of("p:comment-1"), sixteen.of("p"));
        assert_eq!(sixteen.of("p:comment-2:reply"), sixteen.of("p"));
    }

    #[test]
    fn ids_spread_evenly() {
        let sixteen = Partitions::new(16).unwrap();
        let mut counts = [0_u32; 16];
        for n in 0..16_000_u128 {
            let id =
                uuid::Uuid::from_u128(0x0192_f0c1_0000_7000_8000_0000_0000_0000 + n).to_string();
            counts[usize::from(sixteen.of(&id).0)] += 1;
        }
        assert!(counts.iter().all(|n| (800..1200).contains(n)), "{counts:?}");
    }
}

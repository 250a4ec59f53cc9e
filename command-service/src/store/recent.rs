//! Aggregates used lately, at their version, bounded in bytes.
//!
//! What is kept here may be behind, when another process has written since. A decision that records events
//! may rest on it all the same, for a stale one loses at the version check; any other is confirmed first.

use domain::PostId;
use domain::post::Post;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// A post at a version of its stream.
#[derive(Debug, Clone, Default)]
pub struct Versioned {
    pub post: Post,
    pub version: u64,
}

/// Posts used lately.
#[derive(Debug)]
pub struct Recent {
    posts: Cache<PostId, Versioned, ByBytes>,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<PostId, Versioned> for ByBytes {
    fn weight(&self, _: &PostId, versioned: &Versioned) -> u64 {
        // What the cache itself keeps for an entry comes to about as much as the ids.
        const OF_THE_ENTRY: usize = 96;
        (versioned.post.weight() + OF_THE_ENTRY) as u64
    }
}

impl Recent {
    pub fn new(kib: u32) -> Self {
        let bytes = u64::from(kib) * 1024;
        let posts = usize::try_from(bytes / 400).unwrap_or(usize::MAX);
        Self { posts: Cache::with_weighter(posts, bytes, ByBytes) }
    }

    pub fn get(&self, id: PostId) -> Option<Versioned> {
        self.posts.get(&id)
    }

    /// Keeps a post whose last commit has been answered, unless a later version is known.
    pub fn put(&self, id: PostId, versioned: Versioned) {
        let newer = self.posts.peek(&id).is_some_and(|known| known.version > versioned.version);
        if !newer {
            self.posts.insert(id, versioned);
        }
    }

    pub fn forget(&self, id: PostId) {
        self.posts.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_in_bytes() {
        let recent = Recent::new(64);
        let ids: Vec<_> = (0..10_000).map(|n| PostId(uuid::Uuid::from_u128(n))).collect();
        for id in &ids {
            recent.put(*id, Versioned { version: 1, ..Versioned::default() });
        }
        let kept = ids.iter().filter(|id| recent.get(**id).is_some()).count();
        assert!(kept > 0 && kept * size_of::<Versioned>() <= 64 * 1024, "{kept}");
    }

    #[test]
    fn memory_goes_forward_only() {
        let (recent, id) = (Recent::new(64), PostId(uuid::Uuid::nil()));
        for version in [2, 1] {
            recent.put(id, Versioned { version, ..Versioned::default() });
        }
        assert_eq!(recent.get(id).unwrap().version, 2);
    }
}

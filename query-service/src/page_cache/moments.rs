//! When what is kept of a post came to its end.
//!
//! Nothing is removed when a change is announced. It ends the moment, and what was read in a moment that is
//! over is not fresh any more, also where it is kept only afterwards: so a read and an announcement that
//! overtake one another cannot leave behind what nobody would correct.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use domain::{PostId, Slug};

/// So many counts of changes there are. Posts share them; whoever shares one that moves is read once more.
const COUNTS: usize = 1 << 16;

/// What stays the same until a change is announced, or announcements may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Moment {
    generation: u32,
    changes: u32,
}

#[derive(Debug)]
pub(super) struct Moments {
    generation: AtomicU32,
    changes: Box<[AtomicU32]>,
    pub(super) are_heard: AtomicBool,
}

impl Moments {
    pub(super) fn new() -> Self {
        let changes = (0..COUNTS).map(|_| AtomicU32::new(0)).collect();
        Self { generation: AtomicU32::new(0), changes, are_heard: AtomicBool::new(false) }
    }

    /// To be asked before anything is read.
    pub(super) fn of_post(&self, id: PostId) -> Moment {
        self.now(of_id(id))
    }

    pub(super) fn of_slug(&self, slug: &Slug) -> Moment {
        self.now(of_text(slug.as_str()))
    }

    /// Whether changes are announced to us at present.
    pub(super) fn are_heard(&self) -> bool {
        self.are_heard.load(Ordering::Acquire)
    }

    /// Ends the present moment of a post and of these slugs.
    pub(super) fn end(&self, id: PostId, slugs: &[Slug]) {
        self.changes[of_id(id)].fetch_add(1, Ordering::AcqRel);
        for slug in slugs {
            self.changes[of_text(slug.as_str())].fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Ends all moments: changes before this one may have been missed, or be those of other views.
    pub(super) fn end_all(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn hear(&self) {
        self.are_heard.store(true, Ordering::Release);
    }

    pub(super) fn hear_nothing(&self) {
        self.are_heard.store(false, Ordering::Release);
    }

    fn now(&self, count: usize) -> Moment {
        let generation = self.generation.load(Ordering::Acquire);
        Moment { generation, changes: self.changes[count].load(Ordering::Acquire) }
    }
}

fn of_id(id: PostId) -> usize {
    // The end of an id of ours is random.
    id.0.as_u128() as usize % COUNTS
}

/// FNV-1a; whoever finds slugs that share a count only has them read more often.
fn of_text(text: &str) -> usize {
    let hash = text
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash as usize % COUNTS
}

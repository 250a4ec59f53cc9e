//! One lock for each aggregate that a command is working on: load, decide and append happen for one command at a
//! time, so that commands of this process do not conflict with each other. Conflicts between processes remain.
//!
//! A lock exists only while it is held or waited for. Commands on different aggregates share no more than a
//! look-up in a map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::PostId;
use tokio::sync::OwnedMutexGuard;

/// The locks of all posts. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    places: Arc<Mutex<HashMap<PostId, Entry>>>,
}

/// A lock, and the number of those that hold it or wait for it. Only that number decides when the entry goes.
#[derive(Debug, Default)]
struct Entry {
    users: usize,
    lock: Arc<tokio::sync::Mutex<()>>,
}

/// The right to change one post. It ends when the last clone is dropped: a commit that was sent to Postgres
/// keeps one until the call that carries it has ended, even if the command has been abandoned.
#[derive(Debug, Clone)]
pub struct Lock {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    // Dropped before the place, in the order of the fields.
    _guard: OwnedMutexGuard<()>,
    _place: Place,
}

/// One of the users of an entry.
#[derive(Debug)]
struct Place {
    locks: Locks,
    id: PostId,
}

impl Locks {
    /// Waits until no other command works on this post. Waiting commands take turns in the order of their arrival.
    pub async fn lock(&self, id: PostId) -> Lock {
        let lock = {
            let mut places = self.places();
            let entry = places.entry(id).or_default();
            entry.users += 1;
            Arc::clone(&entry.lock)
        };
        // From here on the entry is released when this is dropped, also while it waits.
        let place = Place { locks: self.clone(), id };
        let guard = lock.lock_owned().await;
        Lock { _held: Arc::new(Held { _guard: guard, _place: place }) }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<PostId, Entry>> {
        // Counts are whole even if a thread panicked while holding them.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.locks.places();
        if let Some(entry) = places.get_mut(&self.id) {
            entry.users -= 1;
            if entry.users == 0 {
                places.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::task::JoinSet;
    use uuid::Uuid;

    use super::*;

    const A: PostId = PostId(Uuid::from_u128(1));
    const B: PostId = PostId(Uuid::from_u128(2));

    #[tokio::test]
    async fn one_post_is_locked_at_a_time_and_others_are_not() {
        let locks = Locks::default();
        let held = locks.lock(A).await;
        assert!(locks.lock(A).now_or_never().is_none());
        assert!(locks.lock(B).now_or_never().is_some());
        drop(held);
        assert!(locks.lock(A).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_lock_is_held_until_its_last_clone_is_dropped() {
        let locks = Locks::default();
        let command = locks.lock(A).await;
        let commit = command.clone();
        drop(command);
        assert!(locks.lock(A).now_or_never().is_none());
        drop(commit);
        assert!(locks.lock(A).now_or_never().is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn commands_that_give_up_hold_up_no_others_and_leave_no_lock_behind() {
        let locks = Locks::default();
        let inside = Arc::new(AtomicUsize::new(0));
        let mut commands = JoinSet::new();
        for number in 0..1_000_u64 {
            let (locks, inside) = (locks.clone(), Arc::clone(&inside));
            let id = PostId(Uuid::from_u128(u128::from(number % 3)));
            commands.spawn(async move {
                let turn = async {
                    let _lock = locks.lock(id).await;
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                };
                match number % 5 {
                    0 => drop(tokio::time::timeout(Duration::ZERO, locks.lock(id)).await),
                    _ => turn.await,
                }
            });
        }
        commands.join_all().await;
        assert!(locks.places().is_empty());
    }
}

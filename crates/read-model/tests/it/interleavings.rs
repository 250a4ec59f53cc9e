//! One post, a projector, two readers who fold it and an eviction, in every order.
//!
//! Of `guard.lua` each of these, once removed, turns this red: in `put_row`, that a position not above the stored one
//! writes nothing; in `put_in_lists`, the same; and that a fill from below the watermark is refused.

use std::sync::Arc;

use domain::{Partition, Point, PostId};
use read_model::{Fill, FoundRow, Guarded, Row, Watermark};
use uuid::Uuid;

use crate::support::{Post, Store, advance, at, beginning, fill};

/// How many orders are tried at once, each in a partition of its own.
const LANES: u16 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The next thing happens to the post.
    Record,
    /// The projector lets the next event into the views.
    Project,
    /// Somebody folds the page as the log has it …
    Fold(usize),
    /// … and offers what they folded.
    Offer(usize),
    Evict,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_whatever_order_a_row_never_goes_back_and_is_what_the_log_says() {
    let store = Arc::new(Store::with_partitions(LANES).await);
    let orders = Arc::new(orders());
    assert_eq!(orders.len(), 3780);
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let (store, orders) = (Arc::clone(&store), Arc::clone(&orders));
        lanes.spawn(async move {
            let id = id_in(&store, Partition(lane));
            for order in orders.iter().skip(lane.into()).step_by(LANES.into()) {
                Trial::new(&store, id).await.run(order).await;
            }
        });
    }
    while let Some(ended) = lanes.join_next().await {
        ended.unwrap();
    }
}

/// Every order of these steps in which nothing is projected before it is recorded or offered before it is
/// folded. The two readers do the same, so the first always folds first.
fn orders() -> Vec<Vec<Step>> {
    fn extend(done: &mut Vec<Step>, orders: &mut Vec<Vec<Step>>) {
        let count = |step| done.iter().filter(|one| **one == step).count();
        let (recorded, projected) = (count(Step::Record), count(Step::Project));
        let folded = [count(Step::Fold(0)), count(Step::Fold(1))];
        let offered = [count(Step::Offer(0)), count(Step::Offer(1))];
        let next = [
            (Step::Record, recorded < 2),
            (Step::Project, projected < recorded),
            (Step::Fold(0), folded[0] == 0),
            (Step::Fold(1), folded[0] == 1 && folded[1] == 0),
            (Step::Offer(0), offered[0] < folded[0]),
            (Step::Offer(1), offered[1] < folded[1]),
            (Step::Evict, count(Step::Evict) == 0),
        ];
        if done.len() == 9 {
            orders.push(done.clone());
        }
        for (step, _) in next.into_iter().filter(|(_, possible)| *possible) {
            done.push(step);
            extend(done, orders);
            done.pop();
        }
    }
    let mut orders = vec![];
    extend(&mut vec![], &mut orders);
    orders
}

/// One post in one order. It was published and projected; then it loses its tag and is taken back.
struct Trial<'a> {
    store: &'a Store,
    partition: Partition,
    post: Post,
    epoch: String,
    head: u64,
    watermark: u64,
    folded: [Option<(u64, Row)>; 2],
    seen: Option<u64>,
    listed: u64,
}

impl<'a> Trial<'a> {
    async fn new(store: &'a Store, id: PostId) -> Self {
        let mut post =
            Post { id, ..Post::drafted(1).published(2).tagged(3, &["art"]).unpublished(4) };
        post.events.iter_mut().for_each(|event| event.stream_id = id.to_string());
        let partition = store.views.partition_of(id);
        let epoch = Uuid::new_v4().to_string();
        // What the last trial left behind is of another epoch.
        let found = store.watermark(partition).await;
        let new = beginning(partition, &epoch, Point::START, found);
        assert_eq!(store.views.begin_epoch(&new).await.unwrap(), Guarded::Written);
        let mut trial = Self {
            store,
            partition,
            post,
            epoch,
            head: 2,
            watermark: 0,
            folded: [None, None],
            seen: None,
            listed: 0,
        };
        trial.project(2).await;
        trial
    }

    async fn run(mut self, order: &[Step]) {
        for (number, step) in order.iter().enumerate() {
            match *step {
                Step::Record => self.head += 1,
                Step::Project => self.project(self.watermark + 1).await,
                Step::Fold(reader) => {
                    self.folded[reader] = Some((self.head, self.post.row_at(self.head)));
                }
                Step::Offer(reader) => self.offer(reader).await,
                Step::Evict => {
                    self.store.evict(&self.post).await;
                    self.seen = None;
                }
            }
            self.look(&order[..=number]).await;
        }
        // When all is quiet, whoever reads last makes it whole.
        self.folded[0] = Some((self.head, self.post.row_at(self.head)));
        self.offer(0).await;
        self.look(order).await;
        assert_eq!((self.seen, self.listed), (Some(4), 4), "after {order:?}");
    }

    /// Does what the projector does: the row that is there and the next event, or a fold of the log.
    async fn project(&mut self, to: u64) {
        let stored = self.store.row(self.post.id).await;
        let row = match stored.and_then(|stored| Row::try_from(&stored).ok()) {
            Some(row) => {
                let next = self.post.events.iter().find(|event| event.position.0 == to);
                Row::fold(Some(row), next.unwrap(), self.post.id)
            }
            None => self.post.row_at(self.head),
        };
        let mut advance = advance(self.partition, self.watermark, to, vec![(self.post.id, row)]);
        advance.epoch.clone_from(&self.epoch);
        assert_eq!(self.store.advance(advance).await, Guarded::Written);
        self.watermark = to;
    }

    async fn offer(&mut self, reader: usize) {
        let (as_of, row) = self.folded[reader].take().unwrap();
        let epoch = self.epoch.clone();
        let fill = Fill { epoch, ..fill(self.partition, as_of, vec![(self.post.id, row)]) };
        let answer = self.store.views.fill(&fill).await.unwrap();
        let expected = if as_of < self.watermark {
            Guarded::Refused(self.watermark())
        } else {
            Guarded::Written
        };
        assert_eq!(answer, expected);
    }

    /// Holds what a reader sees against the log.
    async fn look(&mut self, done: &[Step]) {
        let FoundRow { watermark, row, .. } = self.store.views.row(self.post.id).await.unwrap();
        assert_eq!(watermark, self.watermark(), "after {done:?}");
        if let Some(row) = &row {
            let position = row.position.0;
            assert_eq!(*row, self.post.stored_at(position), "after {done:?}");
            assert!(position >= self.watermark, "{position} is too old after {done:?}");
            assert!(self.seen.is_none_or(|seen| seen <= position), "back after {done:?}");
        } else {
            assert_eq!(self.seen, None, "the row went away after {done:?}");
        }
        self.seen = row.map(|row| row.position.0);

        let (listed, found) = self.lists().await;
        assert!(listed >= self.watermark.max(self.listed), "lists went back after {done:?}");
        self.listed = listed;
        let lists = match listed {
            2 => &["published", "craft", "own-published"][..],
            3 => &["published", "art", "own-published"],
            _ => &["own-drafts"],
        };
        assert_eq!(found, lists, "after {done:?}");
    }

    fn watermark(&self) -> Option<Watermark> {
        Some(Watermark {
            incarnation: 1,
            epoch: self.epoch.clone(),
            point: at(self.watermark),
            unfilled_below: None,
        })
    }

    /// Which lists have the post, and as of which position, as the guard remembers it.
    async fn lists(&self) -> (u64, Vec<&'static str>) {
        let key = |rest: &str| self.store.key(self.partition, rest);
        let mut pipe = redis::pipe();
        pipe.hget(key("listed"), self.post.id.to_string());
        let lists = [
            ("published", "published"),
            ("craft", "tag:craft"),
            ("art", "tag:art"),
            ("own-drafts", "own-drafts:anne"),
            ("own-published", "own-published:anne"),
        ];
        for (_, list) in lists {
            pipe.zcard(key(&format!("list:{list}")));
        }
        let mut answers: Vec<String> =
            pipe.query_async(&mut self.store.redis(self.partition)).await.unwrap();
        let entry = answers.remove(0);
        let lists = lists.into_iter().zip(answers);
        let lists = lists.filter_map(|((name, _), count)| (count == "1").then_some(name));
        (entry.lines().next().unwrap().parse().unwrap(), lists.collect())
    }
}

/// An id in a partition.
fn id_in(store: &Store, partition: Partition) -> PostId {
    let mut ids = std::iter::repeat_with(|| PostId(Uuid::now_v7()));
    ids.find(|id| store.views.partition_of(*id) == partition).unwrap()
}

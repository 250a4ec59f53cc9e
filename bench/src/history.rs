//! A long history, written into the log as fast as its writer takes it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use command_service::store::{Judged, Store, writer};
use domain::PostId;
use domain::post::{Post, PostEvent};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::append::UNLIMITED;
use crate::system::System;

/// As many as one call of the append takes.
const AUTHORS: usize = 256;

/// What happens to posts, which are known by their numbers.
pub(crate) trait Story: Send + Sync + 'static {
    fn posts(&self) -> usize;

    /// How many posts each author has under way at a time. They take turns, a commit each, so the commits of
    /// a post have so many of other posts between them.
    fn under_way(&self) -> usize;

    /// The events of a post's next commit, if there is one more; its first has number 0.
    fn commit(&self, post: usize, number: usize) -> anyhow::Result<Option<Vec<PostEvent>>>;
}

/// What has been written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) events: u64,
    pub(crate) events_per_second: f64,
}

/// A post that is under way.
#[derive(Debug)]
struct Unfinished {
    post: usize,
    id: PostId,
    commits: usize,
    version: u64,
}

/// Tells a whole story to the log of a system, which has been empty.
pub(crate) async fn write(system: &System, story: impl Story) -> anyhow::Result<Written> {
    let (commits, task) = writer(system.store.database.url().parse()?, UNLIMITED, Arc::default());
    tokio::spawn(task.run());
    let store = Store::<Post>::new(system.store.pool.clone(), commits, system.store.partitions);
    let (story, began) = (Arc::new(story), Instant::now());
    let mut authors = JoinSet::new();
    for author in 0..AUTHORS {
        let posts = (author..story.posts()).step_by(AUTHORS);
        authors.spawn(write_posts(store.clone(), Arc::clone(&story), posts));
    }
    let mut events = 0;
    while let Some(author) = authors.join_next().await {
        events += author??;
    }
    let events_per_second = events as f64 / began.elapsed().as_secs_f64();
    let head = system.log.head().await?.0;
    ensure!(head == events, "{events} events were written, and the log has {head}");
    Ok(Written { events, events_per_second })
}

/// Returns how many events that took.
async fn write_posts(
    store: Store<Post>,
    story: Arc<impl Story>,
    mut posts: impl Iterator<Item = usize>,
) -> anyhow::Result<u64> {
    let mut under_way = VecDeque::new();
    let mut events = 0;
    loop {
        let places = story.under_way().saturating_sub(under_way.len());
        let begun = posts.by_ref().take(places);
        under_way.extend(begun.map(|post| {
            let id = PostId(Uuid::now_v7());
            Unfinished { post, id, commits: 0, version: 0 }
        }));
        let Some(mut post) = under_way.pop_front() else { return Ok(events) };
        let Some(commit) = story.commit(post.post, post.commits)? else { continue };
        append(&store, post.id, post.version, &commit).await?;
        post.commits += 1;
        post.version += commit.len() as u64;
        events += commit.len() as u64;
        under_way.push_back(post);
    }
}

async fn append(
    store: &Store<Post>,
    id: PostId,
    version: u64,
    events: &[PostEvent],
) -> anyhow::Result<()> {
    let metadata = HashMap::from([("actor".to_owned(), "anne".to_owned())]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let judged = store.append(deadline, &id.to_string(), version, events, &metadata, None).await?;
    ensure!(matches!(judged, Judged::Recorded { .. }), "a commit was refused: {judged:?}");
    Ok(())
}

//! A long history, written into the log as fast as its writer takes it.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::ensure;
use command_service::store::{Judged, Store, writer};
use domain::post::{Author, Post, PostChanges, PostContent, PostEvent};
use domain::{PostId, Slug};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::append::UNLIMITED;
use crate::requests::{TEXT_BYTES, text};
use crate::system::System;

/// Each post is drafted, published and revised twice.
const POSTS: usize = 50_000;
pub(crate) const EVENTS: usize = 4 * POSTS;
/// As many as one call of the append takes, for it is not the append that is to be measured.
const AUTHORS: usize = 256;

/// Writes what happens to all posts: they are drafted and published, then all are revised, and once more.
/// So a projector that comes back finds rows to fold into.
pub(crate) async fn write(system: &System) -> anyhow::Result<()> {
    let (commits, task) = writer(system.store.database.url().parse()?, UNLIMITED, Arc::default());
    tokio::spawn(task.run());
    let store = Store::<Post>::new(system.store.pool.clone(), commits, system.store.partitions);
    let mut authors = JoinSet::new();
    for author in 0..AUTHORS {
        let count = POSTS / AUTHORS + usize::from(author < POSTS % AUTHORS);
        authors.spawn(write_posts(store.clone(), count));
    }
    while let Some(author) = authors.join_next().await {
        author??;
    }
    let head = system.log.head().await?.0;
    ensure!(head == EVENTS as u64, "the log has {head} events");
    Ok(())
}

async fn write_posts(store: Store<Post>, count: usize) -> anyhow::Result<()> {
    let ids: Vec<PostId> = (0..count).map(|_| PostId(Uuid::now_v7())).collect();
    for id in &ids {
        append(&store, *id, 0, &published(*id)?).await?;
    }
    for version in [2, 3] {
        for id in &ids {
            append(&store, *id, version, &[revised(version)?]).await?;
        }
    }
    Ok(())
}

async fn append(
    store: &Store<Post>,
    id: PostId,
    version: u64,
    events: &[PostEvent],
) -> anyhow::Result<()> {
    let metadata = HashMap::from([("actor".to_owned(), "anne".to_owned())]);
    let judged = store.append(&id.to_string(), version, events, &metadata, None).await?;
    ensure!(matches!(judged, Judged::Recorded { .. }), "a commit was refused: {judged:?}");
    Ok(())
}

fn published(id: PostId) -> anyhow::Result<[PostEvent; 2]> {
    let content = PostContent {
        title: "On writing".to_owned().try_into()?,
        content: text(TEXT_BYTES).try_into()?,
        summary: "How to begin".to_owned().try_into()?,
        tags: vec!["craft".to_owned().try_into()?],
    };
    let author = Author { id: "anne".parse()?, name: Some("Anne".to_owned()) };
    let slug = Slug::recorded(format!("on-writing-{}", id.0.simple()));
    Ok([PostEvent::Drafted { author, content, slug: None }, PostEvent::Published { slug }])
}

fn revised(version: u64) -> anyhow::Result<PostEvent> {
    let content = format!("After version {version}. {}", text(TEXT_BYTES)).try_into()?;
    let changes = PostChanges { content: Some(content), ..PostChanges::default() };
    Ok(PostEvent::Revised { changes, slug: None })
}

//! `projector generations`: which there are, and how they fare.

use anyhow::Context;
use chrono::Utc;
use domain::{Point, Position};
use event_log::{EventLog, Generation, Generations};
use read_model::{Size, VIEW_VERSION, Views};

/// A line for each generation, under a heading.
pub async fn table(
    log: &EventLog,
    generations: &Generations,
    views: &Views,
) -> anyhow::Result<String> {
    let head = log.head().await?;
    let heads = log.heads().await?;
    let mut table = format!(
        "{:>10}  {:>7}  {:<9}  {:>12}  {:>9}  {:>10}  {:>9}  {:>7}  {}\n",
        "generation", "version", "state", "position", "lag", "posts", "MiB", "age", "builder"
    );
    for generation in generations.all().await? {
        let Generation { number, view_version, state, .. } = generation;
        let standing = standing(log, &views.of_generation(number), &heads).await;
        let [position, lag, posts, size] = match &standing {
            Ok(standing) => [
                standing.position.unwrap_or(head).to_string(),
                standing.lag.to_string(),
                standing.size.posts.to_string(),
                format!("{:.1}", standing.size.bytes as f64 / 1_048_576.0),
            ],
            Err(_) => ["?"; 4].map(str::to_owned),
        };
        let age = (Utc::now() - generation.created_at).num_minutes();
        let builder = match (&generation.holder, generation.parts) {
            (Some(holder), parts) if parts > 0 => {
                format!("{holder}, {} of {parts} parts", generation.parts_done)
            }
            (Some(holder), _) => holder.clone(),
            (None, _) if view_version != VIEW_VERSION => {
                "another version of the program".to_owned()
            }
            (None, _) => String::new(),
        };
        let why = standing.err().map_or_else(String::new, |error| format!("; {error:#}"));
        table += &format!(
            "{number:>10}  {view_version:>7}  {state:<9}  {position:>12}  {lag:>9}  {posts:>10}  {size:>9}  {:>7}  {builder}{why}\n",
            age_in_words(age),
        );
    }
    Ok(table)
}

/// How far a generation has come.
struct Standing {
    /// Of the partition that is farthest back; `None` if none has anything left to come.
    position: Option<Position>,
    lag: u64,
    size: Size,
}

async fn standing(log: &EventLog, views: &Views, heads: &[Point]) -> anyhow::Result<Standing> {
    let marks = views.watermarks().await.context("its views do not answer")?;
    // Each partition's lag by itself: one that has nothing new stands where its last event does.
    let (mut position, mut lag) = (None, 0);
    for ((partition, mark), head) in log.partitions().all().zip(marks).zip(heads) {
        let at = mark.map(|mark| mark.point.position).unwrap_or_default();
        if at < head.position {
            lag += log.count_between(partition, at, head.position, 1_000_000).await?;
            position = Some(position.map_or(at, |position: Position| position.min(at)));
        }
    }
    let size = views.size().await.context("its views do not answer")?;
    Ok(Standing { position, lag, size })
}

fn age_in_words(minutes: i64) -> String {
    match minutes {
        ..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        2880.. => format!("{} d", minutes / 1440),
    }
}

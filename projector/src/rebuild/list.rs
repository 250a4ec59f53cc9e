//! `projector generations`: which there are, and how they fare.

use chrono::Utc;
use event_log::{EventLog, Generation, Generations};
use read_model::{VIEW_VERSION, Views};

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
        let of_it = views.of_generation(number);
        let marks = of_it.watermarks().await?;
        // Each partition's lag by itself: one that has nothing new stands where its last event does.
        let mut lag = 0;
        for ((partition, mark), head) in log.partitions().all().zip(&marks).zip(&heads) {
            let at = mark.as_ref().map(|mark| mark.point.position).unwrap_or_default();
            if at < head.position {
                lag += log.count_between(partition, at, head.position, 1_000_000).await?;
            }
        }
        let position = if lag == 0 {
            head
        } else {
            marks.iter().flatten().map(|mark| mark.point.position).min().unwrap_or_default()
        };
        let size = of_it.size().await?;
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
        table += &format!(
            "{number:>10}  {view_version:>7}  {state:<9}  {:>12}  {lag:>9}  {:>10}  {:>9.1}  {:>7}  {builder}\n",
            position.to_string(),
            size.posts,
            size.bytes as f64 / 1_048_576.0,
            age_in_words(age),
        );
    }
    Ok(table)
}

fn age_in_words(minutes: i64) -> String {
    match minutes {
        ..120 => format!("{minutes} min"),
        120..2880 => format!("{} h", minutes / 60),
        2880.. => format!("{} d", minutes / 1440),
    }
}

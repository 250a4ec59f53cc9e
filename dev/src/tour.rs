//! Follows one post through the running system: recorded, in Kafka, in Redis, read. Then compares
//! how far each part of the system has come.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::{services, settings::Settings};

const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) async fn run(settings: &Settings) -> Result<()> {
    const HINT: &str = "the system does not answer; start it with `make run`";
    let client =
        reqwest::Client::builder().timeout(LIMIT).build().context("while making an HTTP client")?;
    for service in services::Service::all(settings) {
        let ready = client.get(service.ready_url()).send().await.context(HINT)?;
        ensure!(ready.status().is_success(), "{} is not ready: {}", service.name, ready.status());
    }
    // One connection for each hop that is watched, so that none waits for another.
    let mut relayed = PgConnection::connect(&settings.database_url()).await.context(HINT)?;
    let mut database = PgConnection::connect(&settings.database_url()).await.context(HINT)?;
    let mut views = redis::Client::open(settings.redis_url())
        .context("while reading Redis' address")?
        .get_multiplexed_async_connection()
        .await
        .context(HINT)?;
    let token = services::token("tour")?;

    println!("Publishing a post as the author `tour`, and following its event:\n");
    let start = Instant::now();
    let answer = client
        .post(format!("{}/posts", settings.command_url()))
        .bearer_auth(token)
        .json(&json!({ "title": "A tour of Inkstream", "content": "Follow me." }))
        .send()
        .await
        .context(HINT)?;
    let status = answer.status();
    let post: Value = answer.json().await.context("the command service answered without JSON")?;
    ensure!(status.is_success(), "the post was refused with {status}: {post}");
    let position = post["position"].as_i64().context("the answer names no position")?;
    let slug = post["slug"].as_str().context("the answer names no slug")?;
    say(start.elapsed(), &format!("recorded at position {position}"));

    // Both watched at once: what happened while we were not looking yet shows the time we looked.
    let (kafka, redis) = tokio::try_join!(
        until(start, "Kafka did not acknowledge it", async || {
            Ok(relay_cursor(&mut relayed).await? >= position)
        }),
        async {
            let partition = partition_of(position, &mut database).await?;
            let generation = active_generation(&mut database).await?;
            until(start, "it did not reach Redis", async || {
                let watermark = watermark(settings, generation, partition, &mut views).await?;
                Ok(watermark.is_some_and(|watermark| watermark >= position))
            })
            .await
        },
    )?;
    let mut hops = [(kafka, "the relay's cursor says that Kafka has it"), (redis, "in Redis")];
    hops.sort_unstable();
    for (after, sentence) in hops {
        say(after, sentence);
    }
    let read_url = format!("{}/posts/{slug}", settings.query_url());
    let page = client.get(&read_url).send().await.context("while reading the post")?;
    ensure!(page.status().is_success(), "reading the post was answered with {}", page.status());
    let told = page.headers().get("freshness").and_then(|told| told.to_str().ok());
    say(start.elapsed(), &format!("read at {read_url} ({})", told.unwrap_or("freshness unknown")));

    compare(settings, &mut database, &mut views).await
}

/// Asks until the answer is yes, and says when that was.
async fn until(
    start: Instant,
    otherwise: &str,
    mut condition: impl AsyncFnMut() -> Result<bool>,
) -> Result<Duration> {
    while !condition().await? {
        if start.elapsed() > LIMIT {
            bail!("{otherwise} within {LIMIT:?}; the logs are in .data/log");
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(start.elapsed())
}

fn say(after: Duration, sentence: &str) {
    println!("{:8.1} ms  {sentence}", after.as_secs_f64() * 1000.0);
}

async fn relay_cursor(database: &mut PgConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT cursor FROM relay")
        .fetch_one(database)
        .await
        .context("while reading how far Kafka has come")
}

async fn partition_of(position: i64, database: &mut PgConnection) -> Result<i64> {
    sqlx::query_scalar("SELECT partition::bigint FROM events WHERE position = $1")
        .bind(position)
        .fetch_one(database)
        .await
        .context("while looking for the event")
}

/// The generation of the views that readers are answered from.
async fn active_generation(database: &mut PgConnection) -> Result<i32> {
    sqlx::query_scalar(
        "SELECT number FROM generations WHERE state = 'active' ORDER BY turn DESC LIMIT 1",
    )
    .fetch_one(database)
    .await
    .context("while asking which generation of the views is active")
}

async fn watermark(
    settings: &Settings,
    generation: i32,
    partition: i64,
    views: &mut MultiplexedConnection,
) -> Result<Option<i64>> {
    redis::cmd("HGET")
        .arg(format!("{{{}:g{generation}:{partition}}}:watermark", settings.redis_prefix))
        .arg("position")
        .query_async(views)
        .await
        .context("while reading how far the views have come")
}

/// How far the log, Kafka and the views have come, and whether that is equally far.
async fn compare(
    settings: &Settings,
    database: &mut PgConnection,
    views: &mut MultiplexedConnection,
) -> Result<()> {
    let cursor = relay_cursor(database).await?;
    let parts: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT part::bigint, coalesce(max(position), 0),
                coalesce(max(position) FILTER (WHERE position <= $1), 0)
         FROM store, generate_series(0, partitions - 1) AS part
         LEFT JOIN events ON events.partition = part
         GROUP BY part
         ORDER BY part",
    )
    .bind(cursor)
    .fetch_all(&mut *database)
    .await
    .context("while reading how far the log has come")?;
    let head = parts.iter().map(|(_, head, _)| *head).max().unwrap_or(0);

    println!("\nThe last position of each partition:\n");
    println!(" partition   in Postgres      in Kafka      in Redis");
    let generation = active_generation(database).await?;
    let mut behind = 0;
    for (partition, head, relayed) in parts {
        let watermark = watermark(settings, generation, partition, views).await?;
        let shown = watermark.map_or("nothing".to_owned(), |watermark| watermark.to_string());
        let agrees = watermark == Some(head);
        behind += usize::from(!agrees);
        let note = if agrees { "" } else { "  differs" };
        println!("{partition:10} {head:13} {relayed:13} {shown:>13}{note}");
    }
    println!("\nThe log ends at position {head}; the relay's cursor stands at {cursor}.");
    if behind == 0 && cursor == head {
        println!("Postgres, Kafka and Redis agree.");
    } else {
        println!("They differ, as they do for a moment while somebody writes.");
    }
    Ok(())
}

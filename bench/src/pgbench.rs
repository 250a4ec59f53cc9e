//! The yardstick: pgbench inserting the same rows, each commit in one statement of its own.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::append::{ANSWER, Rows, metadata, payload};
use crate::load::CLIENTS;

/// Commits per second.
pub(crate) fn inserts_per_second(url: &str, rows: Rows, seconds: u32) -> anyhow::Result<f64> {
    let path = std::env::temp_dir().join(format!("inkstream-pgbench-{}.sql", std::process::id()));
    let mut script = std::fs::File::create(&path).context("writing pgbench's script")?;
    script.write_all(statement(rows).as_bytes())?;
    let prepared = run(&["-c", "CREATE SEQUENCE bench_position"], "psql", url);
    let seconds = seconds.to_string();
    let clients = CLIENTS.to_string();
    let said = prepared.and_then(|_| {
        let file = path.to_string_lossy();
        run(
            &["-n", "-M", "prepared", "-c", &clients, "-j", "2", "-T", &seconds, "-f", &file],
            "pgbench",
            url,
        )
    });
    std::fs::remove_file(&path).context("removing pgbench's script")?;
    rate(&said?)
}

/// The positions come from a sequence, and the ids count up with them: less work than the store's own, and
/// as kind to the indexes.
fn statement(rows: Rows) -> String {
    let key = match rows {
        Rows::EventAndSlug => String::new(),
        Rows::EventSlugAndKey => key(),
    };
    format!(
        "WITH number AS (SELECT nextval('bench_position') AS n),
         event AS (
             INSERT INTO events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                                 metadata, position, partition, event_id, recorded_at)
             SELECT 'post', lpad(to_hex(n), 32, '0')::uuid::text, 1, 'post.drafted', '1', '{}'::jsonb,
                    '{}'::jsonb, n, n % 16, gen_random_uuid(), clock_timestamp()
             FROM number
             RETURNING aggregate_id, event_id, position
         ){key}
         INSERT INTO slugs (slug, post_id)
         SELECT 'on-writing-' || replace(aggregate_id, '-', ''), aggregate_id FROM event;",
        payload(),
        metadata()
    )
    .replace('\n', " ")
}

/// One more part of the statement.
fn key() -> String {
    format!(
        ",
         key AS (
             INSERT INTO idempotency_keys (author, key, commit_uid, request_hash, answer, version, position,
                                           recorded_at)
             SELECT 'anne', aggregate_id, event_id, sha256('7'), replace('{ANSWER}', 'ID', aggregate_id)::jsonb,
                    1, position, clock_timestamp()
             FROM event
         )"
    )
}

fn run(args: &[&str], program: &str, url: &str) -> anyhow::Result<String> {
    let output = Command::new(find(program)).args(args).arg(url).output();
    let output = output.with_context(|| format!("starting {program}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// Debian keeps the programs of each version in a folder of their own.
fn find(program: &str) -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = folders
        .map(|folder| folder.path().join("bin").join(program))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| program.into())
}

fn rate(said: &str) -> anyhow::Result<f64> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .context("pgbench told no rate")?;
    let number = line.split_whitespace().next().context("pgbench told no rate")?;
    number.parse().context("pgbench's rate is no number")
}

//! What the figures were taken with.

use anyhow::Context;
use sqlx::{Connection, PgConnection};

/// The machine and the settings that matter, a line each.
pub(crate) async fn describe() -> anyhow::Result<Vec<(String, String)>> {
    let mut lines = vec![
        ("machine".to_owned(), format!("{}, {} cores", processor(), cores())),
        ("memory".to_owned(), memory()),
    ];
    let mut postgres = PgConnection::connect(&testkit::shared().postgres_url).await?;
    for setting in ["server_version", "fsync", "synchronous_commit", "shared_buffers"] {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut postgres)
            .await?;
        lines.push((format!("postgres {setting}"), value));
    }
    Ok(lines)
}

fn processor() -> String {
    field("/proc/cpuinfo", "model name").unwrap_or_else(|| "an unknown processor".to_owned())
}

fn memory() -> String {
    field("/proc/meminfo", "MemTotal").unwrap_or_else(|| "unknown".to_owned())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The memory that a process has in use, in MB.
pub(crate) fn resident_megabytes(process: u32) -> anyhow::Result<f64> {
    megabytes(process, "VmRSS")
}

/// The most that it has had in use so far, in MB.
pub(crate) fn peak_megabytes(process: u32) -> anyhow::Result<f64> {
    megabytes(process, "VmHWM")
}

fn megabytes(process: u32, name: &str) -> anyhow::Result<f64> {
    let size = field(&format!("/proc/{process}/status"), name);
    let kilobytes = size.as_deref().and_then(|size| size.strip_suffix(" kB"));
    let kilobytes: f64 = kilobytes.context("the process has ended")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

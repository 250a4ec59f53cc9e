//! The log of a process: sentences for people, or JSON for machines, on standard error.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What is logged, and how it looks.
#[derive(Debug, Clone, Args)]
pub struct TelemetryArgs {
    /// Which lines are logged: a level, or directives such as `info,command_service=debug`
    #[arg(long, env = "INKSTREAM_LOG", default_value = "info")]
    pub log: String,

    /// How lines look: text for people, json for machines
    #[arg(long, env = "INKSTREAM_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Starts logging; to be called once, before anything is worth a line.
pub fn init(service: &str, args: &TelemetryArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log)
        .with_context(|| format!("INKSTREAM_LOG cannot be read: `{}`", args.log))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match args.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!(error)).context("logging is on already")?;
    tracing::info!(service.name = service, "Starting {service}");
    Ok(())
}

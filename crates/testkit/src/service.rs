//! Our own services as processes, built by cargo and told their settings by the environment.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::{Launch, Process};

/// Where the binary of one of our services lies: in `INKSTREAM_BIN_DIR` if that is set, else where
/// cargo put the running test or launcher.
pub fn service_binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("INKSTREAM_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => program_folder()?,
    };
    let binary = folder.join(name);
    if !binary.exists() {
        bail!("{} does not exist; build it with `cargo build --bins`", binary.display());
    }
    Ok(binary)
}

/// Returns the folder that cargo puts programs into, beside which or below which this one lies.
pub fn program_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().context("while looking for our own executable")?;
    let folder = own.parent().context("our own executable lies in no folder")?;
    // Tests lie one folder deeper than programs.
    let is_test = folder.ends_with("deps");
    Ok(folder.parent().filter(|_| is_test).unwrap_or(folder).to_owned())
}

/// Starts the binary of a service with these settings. It dies with us.
pub fn service_process(name: &str, log: &Path, settings: &[(&str, &str)]) -> Result<Process> {
    let launch = Launch::new(name, service_binary(name)?, log);
    settings.iter().fold(launch, |launch, (key, value)| launch.env(key, value)).start()
}

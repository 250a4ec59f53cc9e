//! Limits on what clients may take from a server: connections, bytes, and time without progress.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors that are not for clients: connections to servers, log output, the ops port.
const RESERVED_DESCRIPTORS: u64 = 512;
/// A server with fewer connections is not worth starting.
const MIN_CONNECTIONS: u64 = 16;

/// Limits on connections from clients.
#[derive(Debug, Clone, Copy, Args)]
pub struct ConnectionArgs {
    /// Maximum number of connections from clients; at the limit, those that have waited longest for a
    /// request are closed. Lowered at the start if the process may not open as many files
    #[arg(
        long,
        env = "INKSTREAM_CONNECTIONS",
        default_value_t = 4096,
        value_parser = RangedU64ValueParser::<usize>::new().range(16..=1_000_000),
    )]
    pub connections: usize,
}

/// Limits for the clients of one port.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Name of the port in metrics.
    pub(super) port: &'static str,
    /// Maximum number of open connections.
    pub(super) connections: usize,
    /// Time that every connection has for its next request before it may be closed to make room. In a flood of
    /// connections, others wait to be accepted meanwhile.
    pub(super) min_wait: Duration,
    /// Timeout for the first byte of the next request. Longer than most proxies and clients keep an
    /// idle connection, so that they close it first.
    pub(super) idle: Duration,
    /// Timeout for the head of a request, from its first byte on.
    pub(super) head: Duration,
    /// Timeout for the next byte of a request's body.
    pub(super) body_progress: Duration,
    /// Timeout for all of a request's body.
    pub(super) body: Duration,
    /// Timeout for a client to accept the next byte of a response.
    pub(super) write: Duration,
    /// Maximum number of bytes read and discarded after an early response.
    pub(super) drained_bytes: usize,
}

impl Limits {
    /// Maximum size of a request's head, above which the response is 431.
    pub(super) const HEAD_BYTES: usize = 32 << 10;
    /// Timeout for all of a request's body.
    pub const BODY: Duration = Duration::from_secs(30);

    /// Returns the limits of a port for everyone, with so many connections.
    ///
    /// Raises the soft limit of open files if it is too low. Lowers the number of connections if the hard
    /// limit is too low as well, and fails if hardly any would be left.
    pub fn of(args: ConnectionArgs) -> anyhow::Result<Self> {
        let connections = fit_descriptors(args.connections)?;
        Ok(Self { port: "http", connections, ..Self::ops() })
    }

    /// Returns the limits of an ops port: few connections, which no other port can use up.
    pub(crate) fn ops() -> Self {
        Self {
            port: "ops",
            connections: 64,
            min_wait: Duration::from_secs(5),
            idle: Duration::from_secs(75),
            head: Duration::from_secs(10),
            body_progress: Duration::from_secs(5),
            body: Self::BODY,
            write: Duration::from_secs(10),
            drained_bytes: 16 << 20,
        }
    }
}

/// Returns the number of connections for which there are file descriptors, at most as many as wanted.
fn fit_descriptors(wanted: usize) -> anyhow::Result<usize> {
    let wanted = wanted as u64;
    let needed = wanted.saturating_add(RESERVED_DESCRIPTORS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let mut granted = current.unwrap_or(u64::MAX);
    if granted < needed {
        let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
        match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
            Ok(()) => granted = raised,
            Err(error) => tracing::warn!(%error, "limit of open files cannot be raised"),
        }
    }
    let fitting = fitting(wanted, granted)?;
    if fitting < wanted {
        tracing::warn!(
            connections.wanted = wanted,
            connections.possible = fitting,
            open_files = granted,
            "INKSTREAM_CONNECTIONS lowered: the process may not open as many files"
        );
    }
    usize::try_from(fitting).context("too many connections")
}

fn fitting(wanted: u64, descriptors: u64) -> anyhow::Result<u64> {
    let possible = descriptors.saturating_sub(RESERVED_DESCRIPTORS);
    ensure!(
        possible >= MIN_CONNECTIONS,
        "the process may open {descriptors} files, and needs at least {}: raise the limit (ulimit -n)",
        RESERVED_DESCRIPTORS + MIN_CONNECTIONS
    );
    Ok(possible.min(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_by_the_files_that_may_be_open() {
        assert_eq!(fitting(4096, u64::MAX).unwrap(), 4096);
        assert_eq!(fitting(4096, 4096 + 512).unwrap(), 4096);
        assert_eq!(fitting(4096, 1024).unwrap(), 512);
        let refused = fitting(4096, 256).unwrap_err().to_string();
        assert!(refused.contains("256 files") && refused.contains("528"), "{refused}");
    }
}

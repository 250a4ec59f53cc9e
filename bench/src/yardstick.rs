//! Routes to compare the query service with: each in a process of its own, served in the same way.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::serve::ListenerExt as _;
use testkit::{Launch, Process, free_port};
use tokio::net::TcpListener;

use crate::http::Connection;
use crate::system::System;

/// Serves until it is killed.
pub(crate) async fn serve(address: SocketAddr, routes: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?.tap_io(|stream| {
        // It fails only where the client has gone already.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, routes).await?)
}

/// Starts ourselves with a subcommand that serves at the address given to it first.
pub(crate) async fn start(
    system: &System,
    subcommand: &str,
    args: &[OsString],
) -> anyhow::Result<(Process, SocketAddr)> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let program = std::env::current_exe().context("looking for our own program")?;
    let mut process = Launch::new(subcommand, program, system.log_of(subcommand))
        .args([subcommand, &address.to_string()])
        .args(args)
        .start()?;
    while Connection::open(address).await.is_err() {
        process.require_running()?;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok((process, address))
}

//! The yardstick for reads: one axum route in a process of its own that gives the same bytes and headers as
//! the query service does, and looks nothing up.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::routing::get;
use testkit::Process;

use crate::http::Answer;
use crate::system::System;
use crate::yardstick;

/// Gives one answer to every `GET /posts/{address}`
#[derive(Debug, clap::Args)]
pub(crate) struct BareRoute {
    /// Where
    address: SocketAddr,
    /// The file with its headers, a line each, and below an empty line its body
    answer: PathBuf,
}

impl BareRoute {
    /// Serves until it is killed.
    pub(crate) async fn serve(&self) -> anyhow::Result<()> {
        let answer = std::fs::read_to_string(&self.answer).context("reading the answer")?;
        let (head, body) = answer.split_once("\n\n").context("the answer has no body")?;
        let mut headers = HeaderMap::new();
        for line in head.lines() {
            let (name, value) = line.split_once(": ").context("a header without a value")?;
            headers.append(HeaderName::try_from(name)?, HeaderValue::from_str(value)?);
        }
        let body = Bytes::from(body.to_owned());
        let routes = Router::new()
            .route("/posts/{address}", get(async move || (headers.clone(), body.clone())));
        yardstick::serve(self.address, routes).await
    }
}

/// Starts such a process for an answer of the query service.
pub(crate) async fn start(
    system: &System,
    answer: Answer<'_>,
) -> anyhow::Result<(Process, SocketAddr)> {
    let file = system.logs().path().join("bare-route-answer");
    write(&file, answer)?;
    yardstick::start(system, "bare-route", &[file.into_os_string()]).await
}

fn write(file: &Path, answer: Answer<'_>) -> anyhow::Result<()> {
    // Those two the server sets by itself.
    let own = |name: &str| ["date", "content-length"].contains(&name);
    let headers = answer.headers().filter(|(name, _)| !own(name));
    let head: String = headers.map(|(name, value)| format!("{name}: {value}\n")).collect();
    let body = std::str::from_utf8(answer.body)?;
    std::fs::write(file, format!("{head}\n{body}")).context("writing the answer")
}

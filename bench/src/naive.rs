//! The yardstick for reads from Redis: the handler that one writes first. It gets a page as one string of
//! JSON, parses it into what a page is, and has it printed again.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use redis::AsyncCommands as _;
use redis::aio::ConnectionManager;
use serde::{Deserialize, Serialize};
use testkit::{Process, unique_name};

use crate::http::Connection;
use crate::requests::Request;
use crate::system::System;
use crate::yardstick;

/// Answers every `GET /posts/{address}` with what Redis has under that address
#[derive(Debug, clap::Args)]
pub(crate) struct NaiveRoute {
    /// Where
    address: SocketAddr,
    /// Where Redis is
    redis_url: String,
    /// What the keys begin with
    prefix: String,
}

/// As the query service gives it, in that order, so that the same bytes are sent.
#[derive(Debug, Serialize, Deserialize)]
struct Page {
    id: String,
    slug: Option<String>,
    title: String,
    summary: Option<String>,
    tags: Vec<String>,
    author: Author,
    status: String,
    published_at: Option<String>,
    updated_at: String,
    version: u64,
    content: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Author {
    id: String,
    name: Option<String>,
}

#[derive(Clone)]
struct Pages {
    redis: ConnectionManager,
    prefix: String,
}

impl NaiveRoute {
    /// Serves until it is killed.
    pub(crate) async fn serve(&self) -> anyhow::Result<()> {
        let redis = redis::Client::open(self.redis_url.as_str())?.get_connection_manager().await?;
        let pages = Pages { redis, prefix: self.prefix.clone() };
        let routes = Router::new().route("/posts/{address}", get(page)).with_state(pages);
        yardstick::serve(self.address, routes).await
    }
}

async fn page(
    State(mut pages): State<Pages>,
    Path(address): Path<String>,
) -> Result<Json<Page>, StatusCode> {
    let found: Result<Option<String>, _> = pages.redis.get(pages.key(&address)).await;
    let text =
        found.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.ok_or(StatusCode::NOT_FOUND)?;
    let page = serde_json::from_str(&text).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(Json(page))
}

impl Pages {
    fn key(&self, address: &str) -> String {
        format!("{}:{address}", self.prefix)
    }
}

/// Starts such a process, and gives it the pages that the query service has at these paths.
pub(crate) async fn start(
    system: &System,
    query_service: SocketAddr,
    paths: impl IntoIterator<Item = &String>,
) -> anyhow::Result<(Process, SocketAddr)> {
    let (redis_url, prefix) = (system.redis_url()?, unique_name("naive"));
    let redis = redis::Client::open(redis_url)?.get_connection_manager().await?;
    let mut pages = Pages { redis, prefix };
    let mut connection = Connection::open(query_service).await?;
    for path in paths {
        let answer = connection.ask(Request::get(query_service, path).next()).await?;
        ensure!(answer.status == 200, answer.unexpected());
        let address = path.strip_prefix("/posts/").context("this is no path of a page")?;
        let () = pages.redis.set(pages.key(address), answer.body).await?;
    }
    yardstick::start(system, "naive-route", &[redis_url.into(), pages.prefix.into()]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_printed_as_it_was_parsed() {
        let text = r#"{"id":"1","slug":"a","title":"A","summary":null,"tags":["craft"],"author":{"id":"anne","name":"Anne"},"status":"published","published_at":"2026-05-04T03:02:01Z","updated_at":"2026-05-04T03:02:01Z","version":2,"content":"Begin."}"#;
        let page: Page = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&page).unwrap(), text);
    }
}

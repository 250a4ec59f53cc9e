//! The query service: answers every read.

use anyhow::Context as _;
use clap::Parser as _;
use query_service::{App, Config};
use service_runtime::{shutdown_signal, telemetry};

/// Many small answers are made and dropped on several threads at once, which the system's allocator is
/// slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    telemetry::init("query-service", &config.telemetry)?;

    let app = App::build(config).await.context("the query service could not start")?;
    let address = app.address();
    tracing::info!(http.address = %address, "Answering reads on http://{address}");

    app.run_until(shutdown_signal()).await
}

//! The projector's process: start, wait, stop.

use anyhow::Context;
use clap::Parser;
use projector::{App, Config};
use service_runtime::{shutdown_signal, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    telemetry::init("projector", &config.telemetry)?;

    let app = App::build(config).await.context("the projector could not start")?;
    let address = app.ops_address();
    tracing::info!(ops.address = %address, "Projecting; health on http://{address}/health/ready");

    app.run_until(shutdown_signal()).await
}

//! The projector's process: start, wait, stop; or a look into the quarantine, if asked to.

use anyhow::Context;
use projector::config::Command;
use projector::{App, Config, quarantine};
use service_runtime::{shutdown_signal, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Project(config) => project(*config).await,
        Command::Quarantine(args) => {
            telemetry::init("projector quarantine", &args.telemetry)?;
            quarantine::run(&args, &mut std::io::stdout()).await
        }
    }
}

async fn project(config: Config) -> anyhow::Result<()> {
    telemetry::init("projector", &config.telemetry)?;

    let app = App::build(config).await.context("the projector could not start")?;
    let address = app.ops_address();
    tracing::info!(ops.address = %address, "Projecting; health on http://{address}/health/ready");

    app.run_until(shutdown_signal()).await
}

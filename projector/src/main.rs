//! The projector's process: start, wait, stop; or one thing that an operator wants of the views.

use std::process::ExitCode;

use anyhow::Context;
use projector::{App, Command, Config, quarantine};
use service_runtime::{TelemetryArgs, shutdown_signal, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let init =
        |name: &str, args: &TelemetryArgs| telemetry::init(&format!("projector {name}"), args);
    match Command::parse() {
        Command::Project(config) => project(*config).await?,
        Command::Rebuild(command) => {
            init("rebuild", &command.store.telemetry)?;
            command.run().await.context("the views were not rebuilt")?;
        }
        Command::Rollback(command) => {
            init("rollback", &command.store.telemetry)?;
            command.run().await.context("readers are answered as before")?;
        }
        Command::Generations(command) => command.run().await?,
        Command::Abandon(command) => command.run().await?,
        Command::Verify(command) => {
            init("verify", &command.store.telemetry)?;
            if !command.run().await.context("the views were not verified")? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Show(command) => command.run().await?,
        Command::Quarantine(args) => {
            init("quarantine", &args.store.telemetry)?;
            quarantine::run(&args, &mut std::io::stdout()).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn project(config: Config) -> anyhow::Result<()> {
    telemetry::init("projector", &config.store.telemetry)?;

    let app = App::build(config).await.context("the projector could not start")?;
    let address = app.ops_address();
    tracing::info!(ops.address = %address, "Projecting; health on http://{address}/health/ready");

    app.run_until(shutdown_signal()).await
}

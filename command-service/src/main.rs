//! Serves commands; or prepares the database, or signs a token, if asked to.

use anyhow::Context as _;
use command_service::config::Command;
use command_service::{App, Config, incarnation, migrate, token};
use mimalloc::MiMalloc;
use service_runtime::{shutdown_signal, telemetry};

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Serve(config) => serve(*config).await,
        Command::Migrate(args) => {
            telemetry::init("command-service migrate", &args.telemetry)?;
            migrate::run(&args).await.context("the database could not be prepared")
        }
        Command::NewIncarnation(args) => {
            telemetry::init("command-service new-incarnation", &args.telemetry)?;
            incarnation::begin_new(&args).await.context("the incarnation stays as it was")
        }
        Command::Token(args) => token::print(&args),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::init("command-service", &config.telemetry)?;

    let app = App::build(config).await.context("the command service could not start")?;
    let address = app.address();
    tracing::info!(http.address = %address, "Accepting commands on http://{address}");

    app.run_until(shutdown_signal()).await
}

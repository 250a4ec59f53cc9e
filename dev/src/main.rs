//! `inkstream-dev`: what stands behind `make run`, `make test`, `make tour` and `make token`.

#![expect(clippy::print_stdout, reason = "a program at a terminal talks to the person before it")]
#![expect(clippy::print_stderr, reason = "errors go where they do not mix with what was asked for")]

mod lock;
mod run;
mod services;
mod settings;
mod signals;
mod tour;
mod with_servers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{settings::Settings, with_servers::WithServers};

/// Runs Inkstream and its servers on this machine.
#[derive(Parser)]
#[command(name = "inkstream-dev")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start Postgres, Redis, Kafka and the three services, until Ctrl-C
    Run(Settings),
    /// Run a command beside throw-away servers, named to it by INKSTREAM_TEST_… variables
    WithServers(WithServers),
    /// Publish a post on the running system and report each hop of its event
    Tour(Settings),
    /// Run the projector's tools on the running system, such as `projector rebuild`
    Projector {
        #[command(flatten)]
        settings: Settings,
        /// What the projector is told
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Print a bearer token for the local system, and nothing else
    Token {
        /// Whose token it is to be
        #[arg(long)]
        author: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().action {
        Action::Run(settings) => run::run(&settings).await.map(|()| ExitCode::SUCCESS),
        Action::WithServers(arguments) => with_servers::run(&arguments).await,
        Action::Tour(settings) => tour::run(&settings).await.map(|()| ExitCode::SUCCESS),
        Action::Projector { settings, words } => services::projector(&settings, &words),
        Action::Token { author } => services::token(&author).map(|token| {
            println!("{token}");
            ExitCode::SUCCESS
        }),
    };
    done.unwrap_or_else(|error| {
        eprintln!("inkstream-dev: {error:#}");
        ExitCode::FAILURE
    })
}

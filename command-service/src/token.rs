//! `command-service token`: a bearer token for whoever knows the secret.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use http_api::{Actor, TokenVerifier, bearer};

use crate::config::TokenArgs;

/// Writes a token to standard output, and nothing else.
pub fn print(args: &TokenArgs) -> anyhow::Result<()> {
    let token = make(args)?;
    writeln!(std::io::stdout(), "{token}").context("while printing the token")
}

fn make(args: &TokenArgs) -> anyhow::Result<String> {
    let actor = Actor { author_id: args.author.clone(), name: args.name.clone() };
    let token = bearer::sign(&args.auth, &actor, Duration::from_secs(args.seconds))?;
    // The services would turn away a name that is too long, so say it now.
    let refused =
        |_| anyhow::anyhow!("the services would not accept such a token; is the name too long?");
    TokenVerifier::new(&args.auth)?.verify(&token).map_err(refused)?;
    Ok(token)
}

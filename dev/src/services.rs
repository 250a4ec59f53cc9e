//! The three services as processes: their settings, their order, and the secret they share.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail};
use testkit::{Process, data_path, service_binary, service_process};

use crate::settings::Settings;

/// One of our services and where it listens.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// The projector serves nothing but its ops port.
    http_port: Option<u16>,
    ops_port: u16,
}

impl Service {
    /// All of them, in the order in which they stop: no new commands, no new views, no readers.
    pub(crate) fn all(settings: &Settings) -> [Self; 3] {
        [
            Self {
                name: "command-service",
                http_port: Some(settings.command_port),
                ops_port: settings.command_ops_port,
            },
            Self { name: "projector", http_port: None, ops_port: settings.projector_ops_port },
            Self {
                name: "query-service",
                http_port: Some(settings.query_port),
                ops_port: settings.query_ops_port,
            },
        ]
    }

    pub(crate) fn start(&self, settings: &Settings) -> Result<Process> {
        let mut environment = shared_settings(settings)?;
        environment.push(("INKSTREAM_OPS_ADDRESS", format!("127.0.0.1:{}", self.ops_port)));
        if let Some(port) = self.http_port {
            environment.push(("INKSTREAM_HTTP_ADDRESS", format!("127.0.0.1:{port}")));
        }
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let log = data_path(&format!("log/{}.log", self.name));
        service_process(self.name, &log, &environment)
    }

    /// Where it says that it is ready.
    pub(crate) fn ready_url(&self) -> String {
        format!("http://127.0.0.1:{}/health/ready", self.ops_port)
    }
}

/// Brings the database to the present shape.
pub(crate) fn migrate(settings: &Settings) -> Result<()> {
    let output = Command::new(service_binary("command-service")?)
        .arg("migrate")
        .envs(shared_settings(settings)?)
        .stdin(Stdio::null())
        .output()
        .context("while running `command-service migrate`")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("`command-service migrate` failed:\n{}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

/// Runs the projector as one of its tools.
pub(crate) fn projector(settings: &Settings, words: &[String]) -> Result<ExitCode> {
    let status = Command::new(service_binary("projector")?)
        .args(words)
        .envs(shared_settings(settings)?)
        .status()
        .context("while running the projector")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A bearer token that the local system accepts.
pub(crate) fn token(author: &str) -> Result<String> {
    let output = Command::new(service_binary("command-service")?)
        .args(["token", "--author", author])
        .env("INKSTREAM_JWT_SECRET", jwt_secret()?)
        .stdin(Stdio::null())
        .output()
        .context("while running `command-service token`")?;
    if !output.status.success() {
        bail!("`command-service token` failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let token = String::from_utf8(output.stdout).context("the token is not text")?;
    Ok(token.trim().to_owned())
}

fn shared_settings(settings: &Settings) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("INKSTREAM_DATABASE_URL", settings.database_url()),
        ("INKSTREAM_KAFKA_BROKERS", settings.kafka()),
        ("INKSTREAM_REDIS_URL", settings.redis_url()),
        ("INKSTREAM_REDIS_PREFIX", settings.redis_prefix.clone()),
        ("INKSTREAM_PUBLIC_URL", settings.query_url()),
        ("INKSTREAM_JWT_SECRET", jwt_secret()?),
    ])
}

/// Made once for each checkout, and nobody else's to read.
fn jwt_secret() -> Result<String> {
    let path = data_path("jwt-secret");
    if let Ok(secret) = fs::read_to_string(&path) {
        return Ok(secret.trim().to_owned());
    }
    let secret = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    fs::create_dir_all(data_path("")).context("while creating .data")?;
    // Renamed into place, so that two of us who start at once do not read half of it.
    let draft = data_path(&format!("jwt-secret.{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .with_context(|| format!("while creating {}", draft.display()))?;
    file.write_all(secret.as_bytes()).context("while writing the secret for tokens")?;
    fs::rename(&draft, &path).with_context(|| format!("while creating {}", path.display()))?;
    Ok(secret)
}

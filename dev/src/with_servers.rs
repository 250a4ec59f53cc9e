//! Throw-away servers around one command: what `make test`, `make bench` and `make test-shell` use.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitCode, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use testkit::{
    Kafka, KafkaOptions, Place, Postgres, PostgresOptions, Proxied, Redis, RedisOptions,
    remove_leftovers,
};

use crate::signals::{INTERRUPT, Signals};

/// How many tests at a time can have a proxy in front of the shared Kafka.
const KAFKA_PROXIES: usize = 8;

#[derive(Args, Debug)]
pub(crate) struct WithServers {
    /// A setting for Postgres, as in its configuration file; may be given again
    #[arg(long = "postgres-opt", value_name = "NAME=VALUE", value_parser = name_and_value)]
    postgres_settings: Vec<(String, String)>,
    /// The command, after `--`
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Ends as the command ends. The servers are killed: nobody will read what they hold.
pub(crate) async fn run(arguments: &WithServers) -> Result<ExitCode> {
    remove_leftovers()?;
    let mut signals = Signals::listen()?;

    let start = Instant::now();
    eprintln!("Starting Postgres, Redis and Kafka …");
    let servers = tokio::select! {
        servers = Servers::start(&arguments.postgres_settings) => servers?,
        number = signals.next() => return Ok(ExitCode::from(128 + number)),
    };
    eprintln!("Ready after {:.1} s.", start.elapsed().as_secs_f32());

    let (program, rest) = arguments.command.split_first().context("no command was given")?;
    // Without its servers it has nothing to do: should we be killed, the kernel tells it to end.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program).args(rest).envs(servers.variables());
    let mut child =
        command.spawn().with_context(|| format!("could not run {}", program.to_string_lossy()))?;
    let ended = wait(&mut child, &mut signals).await?;
    drop(servers);
    Ok(exit_code(ended))
}

struct Servers {
    postgres: Postgres,
    redis: Redis,
    kafka: Kafka,
}

impl Servers {
    async fn start(postgres_settings: &[(String, String)]) -> Result<Self> {
        let place = Place::passing_for_postgres("postgres")?;
        let settings = postgres_settings.to_vec();
        let postgres = PostgresOptions { log: place.log(), place, port: 0, settings };

        let place = Place::passing("redis")?;
        let redis =
            RedisOptions { log: place.log(), place, port: 0, durable: false, settings: vec![] };

        let place = Place::passing("kafka")?;
        let proxied: Result<_> = (0..KAFKA_PROXIES).map(|_| Proxied::on_free_ports()).collect();
        let kafka = KafkaOptions {
            log: place.log(),
            place,
            port: 0,
            controller_port: 0,
            heap_megabytes: 512,
            proxied: proxied?,
            settings: vec![],
        };

        let (postgres, redis, kafka) =
            tokio::try_join!(Postgres::start(postgres), Redis::start(redis), Kafka::start(kafka))?;
        Ok(Self { postgres, redis, kafka })
    }

    fn variables(&self) -> [(&'static str, String); 4] {
        let ways = self.kafka.proxied().iter();
        let ways: Vec<String> = ways.map(|way| format!("{}={}", way.listens, way.told)).collect();
        [
            (testkit::POSTGRES_URL, self.postgres.url("postgres")),
            (testkit::REDIS_URL, self.redis.url()),
            (testkit::KAFKA, self.kafka.brokers()),
            (testkit::KAFKA_PROXIED, ways.join(",")),
        ]
    }
}

async fn wait(child: &mut Child, signals: &mut Signals) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().context("while waiting for the command")? {
            return Ok(status);
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            number = signals.next() => {
                // Ctrl-C reaches the command by itself, and it decides what that means; a signal
                // sent to us alone has to be passed on.
                if number != INTERRUPT {
                    testkit::Signal::Terminate.send_to(&[child.id()])?;
                }
            }
        }
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

//! The whole system on this machine, until somebody stops it. Its data stays in `.data/`.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use testkit::{
    Kafka, KafkaOptions, Place, Postgres, PostgresOptions, Process, Redis, RedisOptions, Signal,
    data_path, require_free,
};

use crate::{
    lock::RunLock,
    services::{self, Service},
    settings::{DATABASE, Settings},
    signals::Signals,
};

const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(15);

pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let clock = Clock::start();
    let mut signals = Signals::listen()?;
    let lock = RunLock::take()?;
    if lock.after_a_kill {
        wait_for_orphans(settings, &clock).await;
    }
    for (port, purpose, setting) in settings.ports() {
        require_free(port, purpose, setting)?;
    }
    keep_previous_logs()?;

    let mut system = System::default();
    let outcome = tokio::select! {
        outcome = system.run(settings, &clock) => outcome,
        _ = signals.next() => Ok(()),
    };
    if let Err(error) = &outcome {
        eprintln!("\n{error:#}\n");
    }
    println!();
    clock.say("Stopping; once more Ctrl-C to stop at once");
    tokio::select! {
        () = system.stop(&clock) => {}
        // Dropping the system kills what still runs.
        _ = signals.next() => {}
    }
    drop(system);
    drop(lock);
    clock.say("Everything has stopped");
    match outcome {
        Ok(()) => Ok(()),
        Err(_) => bail!("the system did not keep running; the logs are in .data/log"),
    }
}

/// What runs by now, in the order in which it stops.
#[derive(Default)]
struct System {
    services: Vec<Process>,
    kafka: Option<Kafka>,
    redis: Option<Redis>,
    postgres: Option<Postgres>,
}

impl System {
    /// Starts everything, and returns only when something fails.
    async fn run(&mut self, settings: &Settings, clock: &Clock) -> Result<()> {
        self.start_servers(settings, clock).await?;
        self.start_services(settings, clock).await?;
        explain(settings);
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for process in self.processes() {
                process.require_running()?;
            }
        }
    }

    async fn start_servers(&mut self, settings: &Settings, clock: &Clock) -> Result<()> {
        let postgres = PostgresOptions {
            place: Place::lasting_for_postgres("postgres")?,
            port: settings.postgres_port,
            log: data_path("log/postgres.log"),
            settings: vec![],
        };
        let redis = RedisOptions {
            place: Place::lasting("redis")?,
            port: settings.redis_port,
            log: data_path("log/redis.log"),
            durable: true,
            settings: vec![],
        };
        let kafka = KafkaOptions {
            place: Place::lasting("kafka")?,
            port: settings.kafka_port,
            controller_port: settings.kafka_controller_port,
            log: data_path("log/kafka.log"),
            heap_megabytes: 512,
            proxied: vec![],
            settings: vec![],
        };
        clock.say("Starting Postgres, Redis and Kafka");
        let Self { postgres: own_postgres, redis: own_redis, kafka: own_kafka, .. } = self;
        tokio::try_join!(
            async {
                let postgres = own_postgres.insert(Postgres::start(postgres).await?);
                clock.say(&format!("Postgres is ready on {}", postgres.address()));
                postgres.ensure_database(DATABASE).await
            },
            async {
                let redis = own_redis.insert(Redis::start(redis).await?);
                clock.say(&format!("Redis is ready on {}", redis.address()));
                Ok(())
            },
            async {
                let kafka = own_kafka.insert(Kafka::start(kafka).await?);
                clock.say(&format!("Kafka is ready on {}", kafka.brokers()));
                Ok(())
            },
        )?;
        Ok(())
    }

    async fn start_services(&mut self, settings: &Settings, clock: &Clock) -> Result<()> {
        clock.say("Applying the migrations");
        services::migrate(settings)?;
        // In this order, since the first of them makes the topic that the others look for.
        for service in Service::all(settings) {
            clock.say(&format!("Starting {}", service.name));
            self.services.push(service.start(settings)?);
            self.wait_until_ready(&service).await?;
            clock.say(&format!("{} is ready", service.name));
        }
        Ok(())
    }

    async fn wait_until_ready(&mut self, service: &Service) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let url = service.ready_url();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(2))
            .build()
            .context("while making an HTTP client")?;
        loop {
            for process in self.processes() {
                process.require_running()?;
            }
            let said = match client.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            if Instant::now() > deadline {
                bail!("{} was not ready in time; {url} said: {said}", service.name);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let servers = [
            self.kafka.as_mut().map(Kafka::process),
            self.redis.as_mut().map(Redis::process),
            self.postgres.as_mut().map(Postgres::process),
        ];
        self.services.iter_mut().chain(servers.into_iter().flatten())
    }

    /// Those who use something stop before what they use.
    async fn stop(&mut self, clock: &Clock) {
        for process in &mut self.services {
            let stopped = process.stop(Signal::Terminate, STOP_LIMIT).await.map(drop);
            clock.say_stopped(process.name(), &stopped);
        }
        if let Some(kafka) = &mut self.kafka {
            clock.say_stopped("Kafka", &kafka.stop().await);
        }
        if let Some(redis) = &mut self.redis {
            clock.say_stopped("Redis", &redis.stop().await);
        }
        if let Some(postgres) = &mut self.postgres {
            clock.say_stopped("Postgres", &postgres.stop().await);
        }
    }
}

/// Tells how long everything takes.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn say(&self, sentence: &str) {
        println!("{:6.1} s  {sentence}", self.0.elapsed().as_secs_f32());
    }

    fn say_stopped(&self, name: &str, stopped: &Result<()>) {
        match stopped {
            Ok(()) => self.say(&format!("{name} has stopped")),
            Err(error) => self.say(&format!("{name} did not stop well: {error:#}")),
        }
    }
}

/// When we are killed, the kernel tells our servers to stop, which takes them a moment.
async fn wait_for_orphans(settings: &Settings, clock: &Clock) {
    let taken = || settings.ports().iter().any(|(port, ..)| require_free(*port, "", "").is_err());
    let deadline = Instant::now() + Duration::from_secs(30);
    if taken() {
        clock.say("The last run was killed; waiting for its servers to stop");
    }
    while taken() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn keep_previous_logs() -> Result<()> {
    for entry in fs::read_dir(data_path("log")).into_iter().flatten() {
        let path = entry.context("while reading .data/log")?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            fs::rename(&path, path.with_extension("log.previous"))
                .with_context(|| format!("while keeping {}", path.display()))?;
        }
    }
    Ok(())
}

fn explain(settings: &Settings) {
    let (command, query) = (settings.command_url(), settings.query_url());
    let token = services::token("anne").unwrap_or_else(|_| "$(make -s token AUTHOR=anne)".into());
    println!(
        "
Inkstream is running. Logs are in .data/log; Ctrl-C stops everything.

  commands   {command}   {command}/docs
  reads      {query}   {query}/docs
  metrics    http://127.0.0.1:{}/metrics (command service), :{} (query service), :{} (projector)

Publish a post, read it, list the latest:

curl -sS {command}/posts -H 'Content-Type: application/json' -H \"Authorization: Bearer {token}\" \\
     -d '{{\"title\": \"On writing\", \"content\": \"Write *every* day.\"}}'

curl -sS {query}/posts/on-writing

curl -sS '{query}/posts?limit=10'

`make tour` publishes a post and reports each hop of its event.
",
        settings.command_ops_port, settings.query_ops_port, settings.projector_ops_port,
    );
}

//! A Redis server as a child process, on loopback.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    place::Place,
    ports,
    process::{Launch, Process, Signal},
    redis_cluster::tell,
};

const READY_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What may differ from one Redis to the next.
#[derive(Debug)]
pub struct RedisOptions {
    pub place: Place,
    /// 0 takes a free one.
    pub port: u16,
    pub log: PathBuf,
    /// Keep what was written over a restart.
    pub durable: bool,
    /// Settings as in `redis.conf`: `("maxmemory", "20mb")`.
    pub settings: Vec<(String, String)>,
}

/// A running Redis. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    process: Process,
    options: RedisOptions,
    launch: Launch,
}

impl Redis {
    /// Starts it and waits until it answers.
    pub async fn start(mut options: RedisOptions) -> Result<Self> {
        options.port = ports::or_free(options.port)?;
        let mut launch = Launch::new("Redis", "redis-server", &options.log)
            .when_orphaned(Signal::Terminate)
            .args(["--bind", "127.0.0.1", "--port", &options.port.to_string()])
            .args(["--daemonize", "no", "--save", ""])
            .args(["--appendonly", if options.durable { "yes" } else { "no" }])
            .arg("--dir")
            .arg(options.place.path());
        for (name, value) in &options.settings {
            launch = launch.arg(format!("--{name}")).arg(value);
        }

        let mut redis = Self { process: launch.start()?, options, launch };
        redis.wait_until_ready().await?;
        Ok(redis)
    }

    /// Where to connect; with RESP3, which pushed messages need.
    pub fn url(&self) -> String {
        format!("redis://{}/?protocol=resp3", self.address())
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.options.port)
    }

    pub fn port(&self) -> u16 {
        self.options.port
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it in order; if it is durable, all is on disk.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop(Signal::Terminate, STOP_LIMIT).await.map(drop)
    }

    /// Ends it at once.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Starts it again after `stop` or `kill`, or stops it first: same port. Unless it is durable
    /// it comes back empty.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.process = self.launch.start()?;
        self.wait_until_ready().await
    }

    /// Has it forget everything, while it runs.
    pub async fn flush(&self) -> Result<()> {
        tell(self, &redis::cmd("FLUSHALL")).await
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let client = redis::Client::open(self.url()).context("while reading Redis' own address")?;
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            self.process.require_running()?;
            let pong = async {
                let mut connection = client.get_multiplexed_async_connection().await?;
                redis::cmd("PING").query_async::<String>(&mut connection).await
            };
            match pong.await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| {
                        format!("Redis was not ready in time:\n{}", self.process.log_tail(20))
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

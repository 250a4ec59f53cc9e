//! A Kafka broker as a child process: one node that is broker and controller, on loopback, from the
//! jars that dev/setup.sh fetched.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    place::{Place, data_path},
    ports,
    process::{Launch, Process, Signal},
};

/// After a crash Kafka checks its log before it answers, and on a busy machine Java takes a minute to begin.
const READY_LIMIT: Duration = Duration::from_secs(240);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// What may differ from one Kafka to the next.
#[derive(Debug)]
pub struct KafkaOptions {
    pub place: Place,
    /// 0 takes a free one.
    pub port: u16,
    /// Where the broker finds itself in its other role; 0 takes a free one.
    pub controller_port: u16,
    pub log: PathBuf,
    pub heap_megabytes: u32,
    /// Further ways in, each for one proxy.
    pub proxied: Vec<Proxied>,
    /// Settings as in `server.properties`, on top of ours.
    pub settings: Vec<(String, String)>,
}

/// A way into Kafka that leads through a proxy.
///
/// A broker tells its clients where to find it, so a proxy in front of its port would be left
/// behind after the first answer. Who comes in here is told the proxy's port instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxied {
    /// Where the broker listens: the proxy's upstream.
    pub listens: u16,
    /// Where the proxy listens.
    pub told: u16,
}

impl Proxied {
    pub fn on_free_ports() -> Result<Self> {
        Ok(Self { listens: ports::free_port()?, told: ports::free_port()? })
    }
}

/// A running Kafka. Dropping it kills it; the data stays if its place does.
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    options: KafkaOptions,
    launch: Launch,
}

impl Kafka {
    /// Starts it and waits until it answers; prepares its folder first if that is empty.
    pub async fn start(mut options: KafkaOptions) -> Result<Self> {
        options.port = ports::or_free(options.port)?;
        options.controller_port = ports::or_free(options.controller_port)?;
        let class_path = class_path()?;

        let folder = options.place.path();
        let properties = folder.join("server.properties");
        let data = folder.join("data");
        fs::write(&properties, server_properties(&options, &data))
            .with_context(|| format!("while writing {}", properties.display()))?;
        if !data.join("meta.properties").exists() {
            let (class_path, properties) = (class_path.clone(), properties.clone());
            tokio::task::spawn_blocking(move || format_folder(&class_path, &properties))
                .await
                .context("while formatting Kafka's folder")??;
        }

        let launch = Launch::new("Kafka", "java", &options.log)
            .when_orphaned(Signal::Terminate)
            .args([
                format!("-Xms{0}m", options.heap_megabytes / 2),
                format!("-Xmx{}m", options.heap_megabytes),
            ])
            .args(["-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"])
            .arg("-Dorg.slf4j.simpleLogger.showDateTime=true")
            .arg("-cp")
            .arg(class_path)
            .arg("kafka.Kafka")
            .arg(&properties);

        let mut kafka = Self { process: launch.start()?, options, launch };
        kafka.wait_until_ready().await?;
        Ok(kafka)
    }

    /// What clients are given: `host:port`.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.options.port)
    }

    pub fn port(&self) -> u16 {
        self.options.port
    }

    /// The ways in that lead through a proxy.
    pub fn proxied(&self) -> &[Proxied] {
        &self.options.proxied
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it in order.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop(Signal::Terminate, STOP_LIMIT).await.map(drop)
    }

    /// Ends it at once.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Starts it again after `stop` or `kill`, or stops it first: same ports, same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.process = self.launch.start()?;
        self.wait_until_ready().await
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        let address = self.brokers();
        // Asking in Kafka's own words before it listens costs a back-off; knocking does not.
        while tokio::net::TcpStream::connect(&address).await.is_err() {
            self.require_in_time(deadline)?;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &address)
            .create()
            .context("while making a Kafka client")?;
        tokio::task::spawn_blocking(move || {
            loop {
                let limit = deadline.saturating_duration_since(Instant::now());
                let cluster = client.fetch_metadata(None, limit.max(Duration::from_millis(1)))?;
                if !cluster.brokers().is_empty() {
                    return anyhow::Ok(());
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        })
        .await
        .context("while asking Kafka for its brokers")?
        .with_context(|| format!("Kafka was not ready in time:\n{}", self.process.log_tail(20)))
    }

    fn require_in_time(&mut self, deadline: Instant) -> Result<()> {
        self.process.require_running()?;
        if Instant::now() > deadline {
            bail!("Kafka was not ready in time:\n{}", self.process.log_tail(20));
        }
        Ok(())
    }
}

fn class_path() -> Result<OsString> {
    let jars = data_path("kafka-libs");
    // Written last when they are fetched.
    if !jars.join("fetched").exists() {
        bail!("Kafka is not in {}; run dev/setup.sh", jars.display());
    }
    Ok(jars.join("*").into_os_string())
}

/// Gives the folder of a new broker its cluster id.
fn format_folder(class_path: &OsString, properties: &Path) -> Result<()> {
    let formatted = Command::new("java")
        // Over before the better compiler would pay.
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        .arg("-cp")
        .arg(class_path)
        .args(["kafka.tools.StorageTool", "format", "--standalone"])
        .args(["-t", &cluster_id(), "-c"])
        .arg(properties)
        .output()
        .context("could not run Java")?;
    if !formatted.status.success() {
        bail!("Kafka's folder was not formatted:\n{}", String::from_utf8_lossy(&formatted.stderr));
    }
    Ok(())
}

/// A random id as Kafka writes them, and none that looks like an option.
fn cluster_id() -> String {
    loop {
        let id = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4());
        if !id.starts_with('-') {
            return id;
        }
    }
}

fn server_properties(options: &KafkaOptions, data: &Path) -> String {
    let (port, controller) = (options.port, options.controller_port);
    let mut listeners = format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
    let mut advertised = format!("PLAINTEXT://127.0.0.1:{port}");
    let mut protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
    for (number, way) in options.proxied.iter().enumerate() {
        listeners += &format!(",PROXIED{number}://127.0.0.1:{}", way.listens);
        advertised += &format!(",PROXIED{number}://127.0.0.1:{}", way.told);
        protocols += &format!(",PROXIED{number}:PLAINTEXT");
    }
    let further = options.settings.iter().map(|(name, value)| format!("{name}={value}\n"));
    let further: String = further.collect();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
inter.broker.listener.name=PLAINTEXT
log.dirs={}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
{further}",
        data.display()
    )
}

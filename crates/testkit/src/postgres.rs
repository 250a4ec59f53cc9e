//! A Postgres server as a child process, on loopback, with its data in a folder of ours.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    place::{Place, User},
    ports,
    process::{Launch, Process, Signal, as_user},
};

/// After a crash Postgres reads its log before it answers.
const READY_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The superuser, and the only user.
const OWNER: &str = "inkstream";

/// What may differ from one Postgres to the next.
#[derive(Debug)]
pub struct PostgresOptions {
    pub place: Place,
    /// 0 takes a free one.
    pub port: u16,
    pub log: PathBuf,
    /// Settings as in `postgresql.conf`, on top of ours: `("max_connections", "50")`.
    pub settings: Vec<(String, String)>,
}

/// A running Postgres. Dropping it kills it; the data stays if its place does.
#[derive(Debug)]
pub struct Postgres {
    options: PostgresOptions,
    launch: Launch,
    process: Process,
}

impl Postgres {
    /// Starts it and waits until it answers; makes an empty cluster first if there is none.
    pub async fn start(mut options: PostgresOptions) -> Result<Self> {
        options.port = ports::or_free(options.port)?;
        let user = User::for_postgres()?;
        let user = user.as_ref().map(|user| user.name.as_str());
        let data = options.place.path().join("data");
        let programs = programs_for(&data)?;

        if !data.join("PG_VERSION").exists() {
            let (programs, data) = (programs.clone(), data.clone());
            let user = user.map(str::to_owned);
            tokio::task::spawn_blocking(move || make_cluster(&programs, &data, user.as_deref()))
                .await
                .context("while making a Postgres cluster")??;
        }

        let defaults = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", ""),
            ("max_connections", "300"),
            ("shared_buffers", "256MB"),
            ("max_wal_size", "4GB"),
            ("log_checkpoints", "off"),
        ];
        let mut launch = Launch::new("Postgres", programs.join("postgres"), &options.log)
            .user(user)
            .when_orphaned(Signal::Interrupt)
            .arg("-D")
            .arg(data)
            .args(["-p", &options.port.to_string()]);
        for (name, value) in defaults {
            launch = launch.args(["-c", &format!("{name}={value}")]);
        }
        // The last one of a name counts.
        for (name, value) in &options.settings {
            launch = launch.args(["-c", &format!("{name}={value}")]);
        }

        let process = launch.start()?;
        let mut postgres = Self { options, launch, process };
        postgres.wait_until_ready().await?;
        Ok(postgres)
    }

    /// Starts a hot standby of this server, and waits until it answers.
    pub async fn standby(&self, options: PostgresOptions) -> Result<Self> {
        let data = options.place.path().join("data");
        let user = User::for_postgres()?.map(|user| user.name);
        let port = self.options.port.to_string();
        let programs = programs_for(&self.options.place.path().join("data"))?;
        let copied = tokio::task::spawn_blocking(move || {
            as_user(user.as_deref())
                .arg(programs.join("pg_basebackup"))
                .args(["-h", "127.0.0.1", "-p", &port, "-U", OWNER, "-D"])
                .arg(data)
                .args(["--wal-method=stream", "--checkpoint=fast"])
                .args(["--write-recovery-conf", "--no-sync"])
                .current_dir("/")
                .output()
        });
        let copied = copied.await?.context("could not run pg_basebackup")?;
        if !copied.status.success() {
            bail!("pg_basebackup failed:\n{}", String::from_utf8_lossy(&copied.stderr));
        }
        Self::start(options).await
    }

    /// Makes a primary of a standby, and waits until it is one.
    pub async fn promote(&self) -> Result<()> {
        self.run("SELECT pg_promote()").await
    }

    /// Makes a server read-only, as a primary that was demoted is, or lets it take writes again.
    pub async fn set_read_only(&self, read_only: bool) -> Result<()> {
        self.run(&format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}")).await?;
        self.run("SELECT pg_reload_conf()").await
    }

    async fn run(&self, statement: &str) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        connection.execute(statement).await.with_context(|| format!("running {statement}"))?;
        connection.close().await.context("while leaving Postgres")
    }

    /// Where to connect to one of its databases, as its superuser.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{OWNER}@{}/{database}", self.address())
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

    /// Creates an empty database unless there is one of that name.
    pub async fn ensure_database(&self, name: &str) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(name)
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            connection
                .execute(format!("CREATE DATABASE \"{name}\"").as_str())
                .await
                .with_context(|| format!("while creating the database {name}"))?;
        }
        connection.close().await.context("while leaving Postgres")
    }

    /// Ends it in order: clients are cut off, everything is on disk.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop(Signal::Interrupt, STOP_LIMIT).await.map(drop)
    }

    /// Ends it as a crash of the machine's memory would, with all the processes of its clients.
    pub fn kill(&mut self) -> Result<()> {
        let backends = children_of(self.process.id());
        self.process.kill()?;
        if !backends.is_empty() {
            // Left alone they would end by themselves, a little later than a restart wants.
            // Some may have been quicker than we are.
            let _ = Signal::Kill.send_to(&backends);
        }
        Ok(())
    }

    /// Starts it again after `stop` or `kill`, or stops it first: same port, same data.
    pub async fn restart(&mut self) -> Result<()> {
        /// What it says while those that a killed one left behind have not noticed yet.
        const LEFT_BEHIND: &str = "pre-existing shared memory block";
        self.stop().await?;
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            self.process = self.launch.start()?;
            let outcome = self.wait_until_ready().await;
            let is_early = outcome.is_err() && self.process.log_tail(3).contains(LEFT_BEHIND);
            if !is_early || Instant::now() > deadline {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        loop {
            self.process.require_running()?;
            match PgConnection::connect(&self.url("postgres")).await {
                Ok(connection) => {
                    return connection.close().await.context("while leaving Postgres");
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(error).with_context(|| {
                        format!("Postgres was not ready in time:\n{}", self.process.log_tail(20))
                    });
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its quickest way to end by itself takes its backends along and buries them. If it has
        // ended already, or fails to, there is nobody to tell.
        let _ = self.process.signal(Signal::Quit);
        let deadline = Instant::now() + Duration::from_secs(3);
        while matches!(self.process.exited(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn make_cluster(programs: &Path, data: &Path, user: Option<&str>) -> Result<()> {
    // It gets its name when it is finished, so that half a cluster is never taken for a whole one.
    let draft = data.with_extension("draft");
    if draft.exists() {
        fs::remove_dir_all(&draft)
            .with_context(|| format!("while removing {}", draft.display()))?;
    }
    let made = as_user(user)
        .arg(programs.join("initdb"))
        .arg("-D")
        .arg(&draft)
        // Only this machine can reach it, and nothing on it is worth a password.
        .args(["-U", OWNER, "--auth=trust", "--encoding=UTF8", "--locale=C"])
        .args(["--no-instructions", "--no-sync"])
        .current_dir("/")
        .output()
        .context("could not run initdb")?;
    if !made.status.success() {
        bail!("initdb failed:\n{}", String::from_utf8_lossy(&made.stderr));
    }
    fs::rename(&draft, data).with_context(|| format!("while creating {}", data.display()))
}

/// The folder of Postgres' programs: the version that made the data, else the newest installed.
fn programs_for(data: &Path) -> Result<PathBuf> {
    let made_by: Option<u32> = fs::read_to_string(data.join("PG_VERSION"))
        .ok()
        .and_then(|version| version.trim().parse().ok());

    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = installed
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("postgres").exists())
        .collect();
    versions.sort();
    let newest_first = versions.into_iter().rev();

    if let Some(wanted) = made_by {
        if let Some((_, programs)) = newest_first.clone().find(|(version, _)| *version == wanted) {
            return Ok(programs);
        }
    } else if let Some((_, programs)) = newest_first.clone().next() {
        return Ok(programs);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(programs) =
        std::env::split_paths(&path).find(|folder| folder.join("postgres").exists())
    {
        return Ok(programs);
    }
    match made_by {
        Some(version) => bail!(
            "the data in {} was made by Postgres {version}, which is not installed; install it, or \
             remove that folder and lose what is in it",
            data.display()
        ),
        None => bail!("Postgres is not installed; run dev/setup.sh"),
    }
}

/// The processes started by the process `id`, as far as they still run.
fn children_of(id: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|process| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            // The name, in brackets, may hold anything; its state and its parent follow.
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            parent.and_then(|parent| parent.parse().ok()) == Some(id)
        })
        .collect()
}

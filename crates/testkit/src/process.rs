//! Processes that end when we do: started with a log file, stopped gently and then firmly, and taken
//! along by the kernel should we be killed before we could stop them.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

/// What can be said to a process from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Terminate,
    Interrupt,
    Quit,
    Kill,
    /// Stand still, connections open, until [`Signal::Continue`].
    Stop,
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Terminate => "TERM",
            Signal::Interrupt => "INT",
            Signal::Quit => "QUIT",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        }
    }

    /// Sends it. The shell's own `kill` exists on every machine, and needs no `unsafe` here.
    pub fn send_to(self, ids: &[u32]) -> Result<()> {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{} {}", self.name(), ids.join(" "))])
            .stderr(Stdio::null())
            .status()
            .context("while running kill")?;
        if !status.success() {
            bail!("process {} could not be signalled", ids.join(", "));
        }
        Ok(())
    }
}

/// How a process is to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    log: PathBuf,
    user: Option<String>,
    orphaned: Signal,
}

impl Launch {
    /// `name` is what people read in messages. Output goes to the end of the file `log`.
    pub fn new(name: &str, program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            log: log.into(),
            user: None,
            orphaned: Signal::Kill,
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable for the process, on top of our own environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The user to run as, if not ourselves. Only root can ask for this.
    #[must_use]
    pub fn user(mut self, user: Option<&str>) -> Self {
        self.user = user.map(str::to_owned);
        self
    }

    /// The signal the process gets from the kernel if we die without having stopped it.
    #[must_use]
    pub fn when_orphaned(mut self, signal: Signal) -> Self {
        self.orphaned = signal;
        self
    }

    pub fn start(&self) -> Result<Process> {
        if let Some(folder) = self.log.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("while creating {}", folder.display()))?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("while opening {}", self.log.display()))?;

        let mut command = as_user(self.user.as_deref());
        command
            .args(["--pdeathsig", self.orphaned.name()])
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("while sharing the log file")?)
            .stderr(log)
            // A Ctrl-C in the terminal goes to a whole group; the servers must outlive the
            // services, so they are stopped by us, in order.
            .process_group(0);
        if self.user.is_some() {
            command.current_dir("/");
        }
        let child = spawn(command).with_context(|| format!("could not start {}", self.name))?;
        Ok(Process { name: self.name.clone(), child, log: self.log.clone() })
    }
}

/// `setpriv` with what it takes to become `user`, to be followed by a program.
pub(crate) fn as_user(user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command
}

/// Starts a child from a thread that lives as long as this process.
///
/// The kernel tells a child of its parent's death when the parent *thread* ends, and threads of
/// a test or of a runtime's pool come and go.
fn spawn(command: Command) -> Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static NURSERY: OnceLock<mpsc::Sender<Order>> = OnceLock::new();

    let nursery = NURSERY.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Nobody listens only if the one who asked has panicked.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, answered) = mpsc::channel();
    nursery.send((command, answer)).map_err(|_| anyhow!("the starting thread is gone"))?;
    Ok(answered.recv().context("the starting thread is gone")??)
}

/// A running process. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, or `None` while it runs.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("while looking after {}", self.name))
    }

    /// Fails with the end of the log if the process has ended.
    pub fn require_running(&mut self) -> Result<()> {
        match self.exited()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended by itself ({}); the end of {}:\n{}",
                self.name,
                describe(status),
                self.log.display(),
                self.log_tail(20),
            ),
        }
    }

    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        // An ended child keeps its id until it is waited for, so this never hits a stranger;
        // after that, there is nobody to tell.
        if self.exited()?.is_some() {
            return Ok(());
        }
        signal.send_to(&[self.id()]).with_context(|| format!("while signalling {}", self.name))
    }

    /// Asks it to end with `signal`, waits up to `limit`, then kills it. Says how it ended.
    pub async fn stop(&mut self, signal: Signal, limit: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill()
    }

    /// Asks it to end as an operator would, and gives it 15 s.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.stop(Signal::Terminate, Duration::from_secs(15)).await
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("while killing {}", self.name))?;
        self.child.wait().with_context(|| format!("while waiting for {}", self.name))
    }

    /// The last lines of its log, indented.
    pub fn log_tail(&self, lines: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| format!("    {line}\n")).collect()
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody to tell.
        let _ = self.kill();
    }
}

/// How a process ended, in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

//! Where servers keep their data: folders below `.data/` in the checkout, and for Postgres under
//! root, which runs as another user, a folder that user can reach.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail};

/// The checkout we are run in, else the one this was built from.
///
/// Not simply the latter: a checkout can be moved or copied with all that was built in it.
pub fn workspace_root() -> PathBuf {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Set by cargo for what it runs, whatever folder that was called from.
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = package.or_else(|| env::current_dir().ok());
    let starts = [here.as_deref(), Some(built_in)];
    let mut folders = starts.into_iter().flatten().flat_map(Path::ancestors);
    folders.find(|folder| folder.join("dev/setup.sh").exists()).unwrap_or(built_in).to_owned()
}

/// A path below `.data/`, the folder of everything that is made while running.
pub fn data_path(relative: &str) -> PathBuf {
    workspace_root().join(".data").join(relative)
}

/// A user that Postgres can run as, when we ourselves may not.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    uid: u32,
    gid: u32,
}

impl User {
    /// `None` when we are not root and simply run everything as ourselves.
    pub(crate) fn for_postgres() -> Result<Option<Self>> {
        let ours = fs::metadata("/proc/self").context("while finding out who we are")?.uid();
        if ours != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").context("while looking for users")?;
        let named = |name: &str| {
            let fields: Vec<&str> = users
                .lines()
                .map(|line| line.split(':'))
                .find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.collect()))?;
            let uid = fields.get(1)?.parse().ok()?;
            let gid = fields.get(2)?.parse().ok()?;
            Some(Self { name: name.to_owned(), uid, gid })
        };
        match named("postgres").or_else(|| named("inkstream")) {
            Some(user) => Ok(Some(user)),
            None => bail!("Postgres does not run as root and has no user here; run dev/setup.sh"),
        }
    }
}

/// A folder for a server's data: kept, or removed when dropped.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    passing: bool,
}

impl Place {
    /// `.data/<name>`, which stays.
    pub fn lasting(name: &str) -> Result<Self> {
        let path = data_path(name);
        make(&path)?;
        Ok(Self { path, passing: false })
    }

    /// As [`Place::lasting`], or elsewhere if Postgres' user cannot get there.
    pub fn lasting_for_postgres(name: &str) -> Result<Self> {
        Self::for_postgres(name, false)
    }

    /// A folder of this process alone, removed when dropped.
    pub fn passing(name: &str) -> Result<Self> {
        let path = data_path(&passing_name(name));
        make(&path)?;
        Ok(Self { path, passing: true })
    }

    pub fn passing_for_postgres(name: &str) -> Result<Self> {
        Self::for_postgres(&passing_name(name), true)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A log file in this folder, for servers that leave nothing behind.
    pub fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    fn for_postgres(name: &str, passing: bool) -> Result<Self> {
        let user = User::for_postgres()?;
        let mut path = data_path(name);
        make(&path)?;
        if let Some(user) = user {
            if !reachable_by_all(&path)? {
                fs::remove_dir(&path)
                    .with_context(|| format!("while removing {}", path.display()))?;
                path = elsewhere().join(name);
                make(&path)?;
            }
            chown(&path, Some(user.uid), Some(user.gid))
                .with_context(|| format!("while giving {} to {}", path.display(), user.name))?;
        }
        Ok(Self { path, passing })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.passing {
            // What cannot be removed now is found by `remove_leftovers`.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the folders of processes that were killed before they could do so themselves.
pub fn remove_leftovers() -> Result<()> {
    for folder in [data_path("test"), elsewhere().join("test")] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry.with_context(|| format!("while reading {}", folder.display()))?;
            let name = entry.file_name();
            let owner = name.to_string_lossy().split('-').next().map(str::to_owned);
            let alive = owner.is_some_and(|id| Path::new("/proc").join(id).exists());
            if !alive {
                fs::remove_dir_all(entry.path())
                    .with_context(|| format!("while removing {}", entry.path().display()))?;
            }
        }
    }
    Ok(())
}

/// Carries our process id, by which `remove_leftovers` knows whether anybody still needs it.
fn passing_name(name: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("test/{}-{name}-{}", process::id(), &random[..8])
}

/// For a checkout in a home folder that is closed to others; one place for each checkout.
fn elsewhere() -> PathBuf {
    let checkout = workspace_root().to_string_lossy().trim_matches('/').replace('/', "+");
    Path::new("/var/lib/inkstream").join(checkout)
}

/// Makes a folder and opens those above it that are ours, whatever the umask is.
fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("while creating {}", path.display()))?;
    let ours = |folder: &&Path| {
        folder.starts_with(workspace_root().join(".data"))
            || folder.starts_with("/var/lib/inkstream")
    };
    for folder in path.ancestors().skip(1).take_while(ours) {
        let mode = fs::metadata(folder)?.permissions().mode();
        if mode & 0o111 != 0o111 {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode | 0o111))
                .with_context(|| format!("while opening {}", folder.display()))?;
        }
    }
    Ok(())
}

fn reachable_by_all(path: &Path) -> Result<bool> {
    for folder in path.ancestors().skip(1) {
        let folder_is = fs::metadata(folder)
            .with_context(|| format!("while looking at {}", folder.display()))?;
        if folder_is.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

//! Only one `make run` in a checkout at a time.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
};

use anyhow::{Context, Result, bail};
use testkit::data_path;

/// Held by the one `make run` of this checkout. The system lets go of it for us if we are killed.
pub(crate) struct RunLock {
    file: File,
    /// The last to hold it left without emptying it.
    pub(crate) after_a_kill: bool,
}

impl RunLock {
    pub(crate) fn take() -> Result<Self> {
        let path = data_path("run.lock");
        fs::create_dir_all(data_path("")).context("while creating .data")?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("while opening {}", path.display()))?;
        let mut holder = String::new();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                file.read_to_string(&mut holder).context("while reading the lock")?;
                bail!("it is running already in this checkout, as process {}", holder.trim());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("while locking {}", path.display()));
            }
        }
        file.read_to_string(&mut holder).context("while reading the lock")?;
        file.set_len(0).context("while taking the lock")?;
        file.rewind().context("while taking the lock")?;
        writeln!(file, "{}", std::process::id()).context("while taking the lock")?;
        Ok(Self { file, after_a_kill: !holder.is_empty() })
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Emptied, it says that nothing was left behind. If that fails, the next run looks twice.
        let _ = self.file.set_len(0);
    }
}

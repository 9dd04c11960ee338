//! The directory of a spool on disk: who may read it, and who works in it. What root makes of
//! it belongs to the owner of the directory around it ([`state_file`]).
//!
//! One process at a time: a lock that ends with the process says so. A process
//! that stops while the next one starts still holds it for a moment, so it is
//! waited for, but not for long.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;

use super::super::Error;
use crate::state_file;

/// How long a process that stops is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// What SQLite appends to the name of a database for the files beside it.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// A directory that is locked for this process.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes the directory if need be, and locks it.
    pub(super) fn claim(path: &Path) -> Result<Self, Error> {
        let problem = |action: &str, error: io::Error| {
            Error::Open(format!("{action} {}: {error}", path.display()))
        };
        state_file::directory(path).map_err(|error| problem("cannot use", error))?;
        let lock = state_file::append(&path.join("lock"))
            .map_err(|error| problem("cannot write in", error))?;
        let begun = Instant::now();
        while let Err(error) = lock.try_lock() {
            match error {
                TryLockError::WouldBlock if begun.elapsed() < PATIENCE => sleep(POLL),
                TryLockError::WouldBlock => {
                    return Err(Error::Open(format!(
                        "another process works in {}; stop it, or give this one another \
                         spool.directory",
                        path.display()
                    )));
                }
                TryLockError::Error(error) => return Err(problem("cannot lock", error)),
            }
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the database.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("spool.db")
    }

    /// Bytes that are free on its disk; many if the system does not say.
    pub(super) fn free(&self) -> u64 {
        statvfs(&self.path).map_or(u64::MAX, |disk| {
            let blocks: u64 = disk.blocks_available();
            blocks.saturating_mul(disk.fragment_size())
        })
    }

    /// Makes the database's file if there is none, and its entry in the directory
    /// durable. Nobody else may read it; SQLite gives the files beside it the same
    /// mode and, where it is root, the same owner.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let database = self.database();
        let private = |file: File| file.set_permissions(Permissions::from_mode(0o600));
        private(state_file::append(&database)?)?;
        for file in companions(&database) {
            match state_file::open(&file).and_then(private) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.sync()
    }

    /// Puts a damaged database aside, whole, under another name; which.
    pub(super) fn put_aside(&self) -> io::Result<PathBuf> {
        let database = self.database();
        let second = jiff::Timestamp::now().as_second();
        let aside = (0..)
            .map(|number: u32| self.path.join(format!("spool.db.damaged-{second}-{number}")))
            .find(|path| !path.exists())
            .unwrap_or_else(|| self.path.join("spool.db.damaged"));
        for (from, to) in companions(&database).into_iter().zip(companions(&aside)) {
            match fs::rename(from, to) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(database, &aside)?;
        self.sync()?;
        Ok(aside)
    }

    /// Makes names durable: those in the directory, and its own.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        match self.path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    }
}

fn companions(database: &Path) -> [PathBuf; 2] {
    COMPANIONS.map(|suffix| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}

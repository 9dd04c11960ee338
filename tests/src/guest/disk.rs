//! The disk of a guest: a file that holds an ext4 file system.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// The disk's file.
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Makes a disk of so many MiB.
    ///
    /// # Errors
    ///
    /// If it cannot be written or formatted.
    pub fn make(path: &Path, mebibytes: u64) -> Result<Self> {
        File::create(path)?.set_len(mebibytes.saturating_mul(1 << 20))?;
        run(Command::new("mkfs.ext4").arg("-q").arg(path))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts it here. The file system carries out what its journal holds, as it does
    /// when a machine comes back after its power was cut.
    ///
    /// # Errors
    ///
    /// If this is not root, or the file system is damaged.
    pub fn mount(&self, place: &Path) -> Result<Mounted> {
        std::fs::create_dir_all(place)?;
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&self.path).arg(place))?;
        Ok(Mounted { place: place.to_owned() })
    }
}

/// A disk that is mounted, until this is dropped.
pub struct Mounted {
    place: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.place)) {
            eprintln!("{error:#}");
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let problem = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {problem}", output.status);
    Ok(())
}

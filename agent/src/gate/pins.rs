//! What outlives the agent: pinned links, programs and maps.
//!
//! # Layout
//!
//! ```text
//! /sys/fs/bpf/exogate/          the pin directory
//!   if2/                        one per interface, by its number; locked (flock)
//!                               by the process that manages the interface
//!     link                      the attachment; removing it detaches the filter
//!     abi3-0/                   one generation: ABI version and a counter
//!       CONTROL TABLES ...      its maps
//!       program                 the program that runs, or ran last
//!       program-next            the program that is about to run
//! ```
//!
//! An interface is known by its number because BPF file systems allow no dots in
//! names, and because the number survives a rename.
//!
//! # States
//!
//! A process may die between any two steps, so the next one trusts only what it
//! can verify: a filter is *adopted* if the pinned link's program is the one that
//! the interface runs. A generation's maps are *kept* if that program is pinned
//! in the generation and uses exactly these maps, and their ABI and capacity are
//! the ones wanted; else a new generation is made beside it. Generations that are
//! not in force are removed once the new program runs.
//!
//! A link whose interface was deleted is dead; what is left of it is removed.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use aya::{
    maps::MapInfo,
    programs::{
        ProgramInfo,
        links::{FdLink, PinnedLink},
    },
};
use exogate_ebpf::abi::{self, ABI_VERSION};

use crate::gate::{Error, Found, Interface, survey};

/// The name of the pinned link in an interface's directory.
pub(super) const LINK: &str = "link";
/// The name of the running program in a generation.
const PROGRAM: &str = "program";
/// The name of the next program in a generation.
const PROGRAM_NEXT: &str = "program-next";
/// `statfs` type of a BPF file system (linux/magic.h).
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;

/// The pins of one interface, locked for this process.
pub(crate) struct Pins {
    directory: PathBuf,
    /// Holds the lock until dropped.
    _lock: File,
}

/// A directory with the maps and the program of one generation.
#[derive(Debug)]
pub(crate) struct Generation {
    directory: PathBuf,
    /// Whether its maps are pinned and in force.
    pub(crate) in_force: bool,
}

impl Generation {
    /// Where a map is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the program is pinned until [`Pins::settle`].
    pub(crate) fn next_program(&self) -> PathBuf {
        self.directory.join(PROGRAM_NEXT)
    }
}

/// The numbers of the interfaces that have pins.
///
/// # Errors
///
/// If the directory exists but cannot be read.
pub fn interfaces(pin_directory: &Path) -> Result<Vec<u32>, Error> {
    let mut indexes: Vec<u32> = names(pin_directory)?
        .iter()
        .filter_map(|name| name.strip_prefix("if")?.parse().ok())
        .collect();
    indexes.sort_unstable();
    Ok(indexes)
}

/// Where the pins of an interface are.
pub(super) fn directory(pin_directory: &Path, index: u32) -> PathBuf {
    pin_directory.join(format!("if{index}"))
}

impl Pins {
    /// Locks the pins of an interface, making their directory if need be.
    pub(crate) fn lock(pin_directory: &Path, index: u32) -> Result<Self, Error> {
        let directory = directory(pin_directory, index);
        // Before anything is made: other file systems refuse directories with errors that
        // explain nothing, or keep them.
        if !is_bpf_file_system(existing(&directory))? {
            return Err(Error::NotBpfFileSystem { path: pin_directory.to_owned() });
        }
        fs::create_dir_all(&directory).map_err(|source| pin("creating", &directory, source))?;
        let lock = File::open(&directory).map_err(|source| pin("opening", &directory, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { directory, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(Error::Locked { path: directory }),
            Err(fs::TryLockError::Error(source)) => Err(pin("locking", &directory, source)),
        }
    }

    /// Finds out what runs on the interface: exogate's filter, somebody else's,
    /// or nothing. A dead link is removed.
    pub(crate) fn examine(&self, interface: &Interface) -> Result<Option<Found>, Error> {
        let path = self.directory.join(LINK);
        let pinned = path.exists();
        if pinned {
            let link = FdLink::from(
                PinnedLink::from_pin(&path)
                    .map_err(|error| Error::bpf("opening the pinned link", error))?,
            );
            let info =
                link.info().map_err(|error| Error::bpf("asking about the pinned link", error))?;
            if let Some(xdp) = interface.xdp.filter(|xdp| xdp.program == info.program_id()) {
                return Ok(Some(Found { link, mode: xdp.mode, program: xdp.program }));
            }
        }
        if let Some(xdp) = interface.xdp {
            return Err(Error::ForeignProgram {
                interface: interface.name.clone(),
                program: xdp.program,
                name: survey::program_name(xdp.program)
                    .map(|name| format!(" ({name})"))
                    .unwrap_or_default(),
            });
        }
        if pinned {
            remove_file(&path)?;
        }
        Ok(None)
    }

    /// The generation to load into: the one in force if its maps fit, else a new
    /// one.
    pub(crate) fn generation(
        &self,
        found: Option<&Found>,
        capacity: u32,
    ) -> Result<Generation, Error> {
        let mut next = 0u32;
        let prefix = format!("abi{ABI_VERSION}-");
        for name in names(&self.directory)? {
            let generation = Generation { directory: self.directory.join(&name), in_force: true };
            let number = name.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
            next = next.max(number.map_or(0, |number| number.saturating_add(1)));
            if let Some(found) = found
                && name.starts_with(&prefix)
                && generation.serves(found.program, capacity)
            {
                let stale = generation.next_program();
                // The program in force may be pinned under this name, if the
                // process before this one died early.
                if program_id(&stale) != Some(found.program) {
                    remove_file(&stale)?;
                } else {
                    generation.promote()?;
                }
                return Ok(generation);
            }
        }
        let directory = self.directory.join(format!("{prefix}{next}"));
        fs::create_dir(&directory).map_err(|source| pin("creating", &directory, source))?;
        Ok(Generation { directory, in_force: false })
    }

    /// Pins a new link.
    pub(crate) fn keep_link(&self, link: FdLink) -> Result<(), Error> {
        link.pin(self.directory.join(LINK))
            .map(drop)
            .map_err(|error| Error::bpf("pinning the link", error))
    }

    /// Tidies up once the generation's next program runs.
    pub(crate) fn settle(&self, generation: &Generation) -> Result<(), Error> {
        generation.promote()?;
        for name in names(&self.directory)? {
            let directory = self.directory.join(&name);
            if directory.is_dir() && directory != generation.directory {
                remove_directory(&directory)?;
            }
        }
        Ok(())
    }

    /// Tidies up after a filter that could not be put on the interface. Where a link
    /// is pinned, what is in force needs its pins; the next start tidies up then.
    pub(crate) fn abandon(self) {
        if self.directory.join(LINK).exists() {
            return;
        }
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "cannot remove the pins of a filter that was not attached");
        }
    }

    /// Removes everything: first the link, so that a crash leaves no filter whose
    /// maps are gone.
    pub(crate) fn remove(self) -> Result<(), Error> {
        remove_file(&self.directory.join(LINK))?;
        for name in names(&self.directory)? {
            remove_directory(&self.directory.join(name))?;
        }
        fs::remove_dir(&self.directory)
            .map_err(|source| pin("removing", &self.directory, source))?;
        if let Some(parent) = self.directory.parent() {
            // Only succeeds for the last interface.
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

impl Generation {
    /// Whether the running program is pinned here and uses exactly these maps,
    /// and they have the wanted capacity.
    fn serves(&self, program: u32, capacity: u32) -> bool {
        let uses = [self.directory.join(PROGRAM), self.next_program()]
            .iter()
            .filter_map(|path| ProgramInfo::from_pin(path).ok())
            .find(|info| info.id() == program)
            .and_then(|info| info.map_ids().ok().flatten());
        let Some(uses) = uses else { return false };
        abi::map::ALL.iter().all(|name| {
            MapInfo::from_pin(self.map(name)).is_ok_and(|info| {
                uses.contains(&info.id())
                    && (*name != abi::map::TABLES || info.max_entries() == capacity)
            })
        })
    }

    fn promote(&self) -> Result<(), Error> {
        let (next, current) = (self.next_program(), self.directory.join(PROGRAM));
        match fs::rename(&next, &current) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| pin("renaming", &next, source)),
        }
    }
}

fn program_id(path: &Path) -> Option<u32> {
    ProgramInfo::from_pin(path).ok().map(|info| info.id())
}

/// What there is of a path.
pub(super) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."))
}

pub(super) fn is_bpf_file_system(path: &Path) -> Result<bool, Error> {
    let info = nix::sys::statfs::statfs(path)
        .map_err(|source| pin("asking for the file system of", path, source.into()))?;
    Ok(info.filesystem_type().0 == BPF_FS_MAGIC)
}

pub(super) fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(|source| pin("reading", directory, source))?,
    };
    entries
        .map(|entry| {
            let entry = entry.map_err(|source| pin("reading", directory, source))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(|source| pin("removing", path, source)),
    }
}

/// Removes a generation with its pins. BPF file systems refuse the recursive
/// removal of the standard library where files vanish meanwhile.
fn remove_directory(directory: &Path) -> Result<(), Error> {
    for name in names(directory)? {
        remove_file(&directory.join(name))?;
    }
    fs::remove_dir(directory).map_err(|source| pin("removing", directory, source))
}

fn pin(action: &'static str, path: &Path, source: io::Error) -> Error {
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            Error::Permission { action: "access to its pins", source }
        }
        _ => Error::Pin { action, path: path.to_owned(), source },
    }
}

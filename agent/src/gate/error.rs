//! What can go wrong at the gate, in words an operator can act on.

use std::{io, path::PathBuf};

/// An error of the gate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No interface has this name.
    #[error(
        "there is no interface {name:?} in this network namespace; `ip link` lists those there are"
    )]
    UnknownInterface {
        /// The name that was asked for.
        name: String,
    },
    /// The interface carries neither Ethernet nor bare IP.
    #[error(
        "interface {name} is of type {kind}, which is neither Ethernet nor bare IP; exogate cannot judge its packets"
    )]
    UnsupportedInterface {
        /// Its name.
        name: String,
        /// Its link layer, as the kernel calls it.
        kind: String,
    },
    /// The kernel could not be asked about an interface.
    #[error("asking the kernel about {what} over netlink failed: {source}")]
    Netlink {
        /// What was asked.
        what: String,
        /// What came back.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another XDP program is attached.
    #[error(
        "interface {interface} already runs XDP program {program}{name}, which is not exogate's and is left alone; remove it (`ip link set dev {interface} xdp off`) or choose another interface"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The kernel's id of the program.
        program: u32,
        /// Its name in brackets, where the kernel lets us ask.
        name: String,
    },
    /// The pin directory is not on a BPF file system.
    #[error(
        "{path} is not on a BPF file system, so the filter could not outlive this process; mount one: mount -t bpf bpf /sys/fs/bpf",
        path = path.display()
    )]
    NotBpfFileSystem {
        /// The directory.
        path: PathBuf,
    },
    /// Another process holds the interface.
    #[error(
        "another exogate process holds {path}; stop it first, or see what it does with `exogate status`",
        path = path.display()
    )]
    Locked {
        /// The pin directory of the interface.
        path: PathBuf,
    },
    /// A file operation on the pin directory failed.
    #[error("{action} {path} failed: {source}", path = path.display())]
    Pin {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The kernel refused to let this process use BPF.
    #[error(
        "the kernel refused {action} ({source}): exogate needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run it as root, or give it these"
    )]
    Permission {
        /// What was tried.
        action: &'static str,
        /// What came back.
        source: io::Error,
    },
    /// The kernel is too old, or was built without what is needed.
    #[error(
        "this kernel ({release}) cannot run exogate's XDP program: {action} failed: {source}; Linux 5.10 or later with CONFIG_BPF_SYSCALL is needed"
    )]
    Unsupported {
        /// `uname -r`.
        release: String,
        /// What was tried.
        action: &'static str,
        /// What came back.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Loading or attaching failed otherwise.
    #[error("{action} failed: {source}")]
    Bpf {
        /// What was tried, on what.
        action: String,
        /// What came back.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The driver has no native XDP, and generic XDP was not allowed.
    #[error(
        "interface {interface} has no native XDP ({source}); set gate.attach = \"auto\" or \"generic\" to use the slower generic mode"
    )]
    NoNativeXdp {
        /// The interface.
        interface: String,
        /// What came back.
        source: io::Error,
    },
    /// A table larger than the maps.
    #[error(
        "the allow-list needs a table of {needed} lines, but the maps hold {capacity}; raise gate.capacity (prefixes) and restart the agent"
    )]
    TableFull {
        /// Lines of the table.
        needed: usize,
        /// Lines there is room for.
        capacity: usize,
    },
    /// A memory mapping or barrier failed.
    #[error("{action} failed: {source}")]
    Memory {
        /// What was tried.
        action: &'static str,
        /// What came back.
        source: io::Error,
    },
}

impl Error {
    /// Wraps an error of the BPF library, telling a missing capability and a
    /// missing feature from the rest.
    pub(crate) fn bpf(
        action: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        match io_cause(&source) {
            Some(code @ (libc::EPERM | libc::EACCES)) if !has_capabilities() => {
                Self::Permission { action, source: io::Error::from_raw_os_error(code) }
            }
            Some(libc::ENOSYS) => {
                Self::Unsupported { release: kernel_release(), action, source: Box::new(source) }
            }
            _ => Self::Bpf { action: action.to_owned(), source: Box::new(Chain::new(&source)) },
        }
    }
}

/// The first OS error in a chain of causes.
pub(crate) fn io_cause(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        cause = error.source();
    }
    None
}

/// An error with its causes in one line, for libraries that print only their
/// own part.
#[derive(Debug)]
pub(crate) struct Chain(String);

impl Chain {
    pub(crate) fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.contains(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            cause = error.source();
        }
        Self(text)
    }
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Chain {}

/// Whether this thread has what loading and attaching need: CAP_NET_ADMIN,
/// CAP_PERFMON and CAP_BPF, or CAP_SYS_ADMIN, which stands for the last two. Where
/// that cannot be known, the answer is no: the hint that follows from it is the
/// likelier one.
pub(crate) fn has_capabilities() -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    const PERFMON_AND_BPF: u64 = 1 << 38 | 1 << 39;
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    effective & NET_ADMIN != 0
        && (effective & SYS_ADMIN != 0 || effective & PERFMON_AND_BPF == PERFMON_AND_BPF)
}

/// `uname -r`.
pub(crate) fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned())
}

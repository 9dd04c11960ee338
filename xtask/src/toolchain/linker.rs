//! `bpf-linker`: which one, and whose LLVM it uses.
//!
//! It comes in two kinds. The default build holds no LLVM: when it starts, it loads the first
//! `libLLVM*` that it meets in `LD_LIBRARY_PATH`, of whatever version. The other kind is
//! linked with an LLVM and ignores the environment. Its `--version` does not tell them apart,
//! the dynamic linker does.

use super::{Error, PINNED_LINKER, PINNED_LLVM_MAJOR, Places, version::Version};
use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// A `bpf-linker` that runs.
#[derive(Debug)]
pub(crate) struct Linker {
    /// The file.
    pub(crate) path: PathBuf,
    /// Its release.
    pub(crate) version: Version,
    /// Its LLVM.
    pub(crate) llvm: LinkerLlvm,
}

/// Where a linker has its LLVM from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkerLlvm {
    /// Linked with the shared library of this major.
    Linked(u32),
    /// Loaded at run time; made for this major.
    Loaded(u32),
    /// A release that this project does not know: any compiler is let through, and a wrong
    /// one shows when linking.
    Unknown,
}

impl LinkerLlvm {
    /// The major that the compiler must have, if it is known.
    pub(crate) fn major(self) -> Option<u32> {
        match self {
            Self::Linked(major) | Self::Loaded(major) => Some(major),
            Self::Unknown => None,
        }
    }

    /// Whether the compiler must come with a shared LLVM library.
    pub(crate) fn is_loaded_at_run_time(self) -> bool {
        matches!(self, Self::Loaded(_))
    }

    /// Judges by the release and by what `ldd` says of the file.
    fn of(version: Version, ldd: &str) -> Self {
        if let Some(major) = linked_llvm_major(ldd) {
            return Self::Linked(major);
        }
        if version == PINNED_LINKER {
            return Self::Loaded(PINNED_LLVM_MAJOR);
        }
        Self::Unknown
    }
}

impl fmt::Display for LinkerLlvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linked(major) => write!(f, "{major}, its own"),
            Self::Loaded(major) => write!(f, "{major}, loaded from the compiler"),
            Self::Unknown => f.write_str("not known for this release"),
        }
    }
}

impl Linker {
    /// The first linker that is there. It is then used or refused: silently going on to
    /// another one would hide that the first is broken.
    pub(crate) fn find(places: &Places) -> Result<Self, Error> {
        let tried = places.linkers();
        let Some(path) = tried.iter().find(|path| path.is_file()).cloned() else {
            return Err(Error::NoLinker { tried });
        };
        let unusable = |answer: String| Error::LinkerUnusable { path: path.clone(), answer };
        let output = Command::new(&path)
            .arg("--version")
            .output()
            .map_err(|error| unusable(error.to_string()))?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let Some(version) = parse_linker_version(&stdout) else {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(unusable(format!("{} {}", stdout.trim(), stderr.trim())));
        };
        if version < PINNED_LINKER {
            return Err(Error::LinkerTooOld { path, version });
        }
        let llvm = LinkerLlvm::of(version, &ldd(&path));
        Ok(Self { path, version, llvm })
    }
}

/// The shared libraries of a program; empty where `ldd` is missing or the program is static.
fn ldd(path: &Path) -> String {
    Command::new("ldd")
        .arg(path)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// Reads `bpf-linker 0.10.4`.
fn parse_linker_version(output: &str) -> Option<Version> {
    Version::parse(output.trim().strip_prefix("bpf-linker ")?)
}

/// Reads the major of `libLLVM.so.22.1` or `libLLVM-14.so.1` out of `ldd`'s lines.
fn linked_llvm_major(ldd: &str) -> Option<u32> {
    ldd.lines().find_map(|line| {
        let name = line.split_whitespace().next()?;
        let rest = name.strip_prefix("libLLVM.so.").or_else(|| name.strip_prefix("libLLVM-"))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linker_version_is_the_second_word() {
        assert_eq!(parse_linker_version("bpf-linker 0.10.4\n"), Some(Version::new(0, 10, 4)));
        assert_eq!(parse_linker_version("ld 2.40"), None);
    }

    #[test]
    fn a_linked_llvm_counts_more_than_the_release() {
        let ldd = "\tlinux-vdso.so.1 (0x0)\n\tlibLLVM.so.23.1 => /usr/lib/libLLVM.so.23.1 (0x0)\n";
        assert_eq!(LinkerLlvm::of(PINNED_LINKER, ldd), LinkerLlvm::Linked(23));
        assert_eq!(linked_llvm_major("\tlibLLVM-14.so.1 => /usr/lib/libLLVM-14.so.1"), Some(14));
    }

    #[test]
    fn the_pinned_release_loads_the_compilers_llvm() {
        let llvm = LinkerLlvm::of(PINNED_LINKER, "\tlibc.so.6 => /lib/libc.so.6 (0x0)\n");
        assert_eq!(llvm, LinkerLlvm::Loaded(PINNED_LLVM_MAJOR));
        assert!(llvm.is_loaded_at_run_time());
    }

    #[test]
    fn an_unknown_release_has_no_known_llvm() {
        assert_eq!(LinkerLlvm::of(Version::new(0, 99, 0), "").major(), None);
    }
}

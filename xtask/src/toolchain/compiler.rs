//! The compiler: the first one that holds its own library source and fits the linker.

use super::{
    Error, OLDEST_RUSTC, Places,
    places::{Candidate, Origin},
    version::{RustcVersion, Version},
};
use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The library's lock file under a sysroot: where it is, the library's source is.
const LIBRARY_LOCK: &str = "lib/rustlib/src/rust/library/Cargo.lock";

/// Files smaller than this are linker scripts with a library's name.
const SMALLEST_LLVM_LIBRARY: u64 = 1 << 20;

/// A compiler that can build `core`.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// The rule that it was found by.
    pub(crate) origin: Origin,
    /// The `rustc`.
    pub(crate) path: PathBuf,
    /// What it says of itself.
    pub(crate) version: RustcVersion,
    /// The directory of its libraries.
    pub(crate) sysroot: PathBuf,
    /// The `cargo` to run it with.
    pub(crate) cargo: PathBuf,
    /// Its shared LLVM library, if it has one.
    pub(crate) llvm_library: Option<PathBuf>,
}

impl Compiler {
    /// Where the source of `core` is.
    pub(crate) fn library_source(&self) -> PathBuf {
        let lock = self.sysroot.join(LIBRARY_LOCK);
        lock.parent().map(Path::to_path_buf).unwrap_or(lock)
    }

    /// The first compiler that fits, and those that were passed over before it.
    pub(crate) fn find(
        places: &Places,
        llvm_major: Option<u32>,
    ) -> Result<(Self, Vec<Rejected>), Error> {
        choose(places.compilers(), llvm_major, probe)
    }
}

/// A compiler that was passed over.
#[derive(Clone, Debug)]
pub(crate) struct Rejected {
    /// Which.
    pub(crate) candidate: Candidate,
    /// Why.
    pub(crate) reason: Reason,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { candidate, reason } = self;
        write!(f, "{} ({}): {reason}", candidate.path.display(), candidate.origin)
    }
}

/// What speaks against a compiler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is no such file.
    Absent,
    /// It does not run as a compiler does.
    Unusable(String),
    /// Its library source is not installed.
    NoLibrarySource(PathBuf),
    /// It is from before the oldest supported release.
    TooOld(Version),
    /// Its LLVM is not the linker's.
    OtherLlvm {
        /// The compiler's.
        compiler: Version,
        /// The linker's.
        linker: u32,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no such file"),
            Self::Unusable(answer) => write!(f, "does not run: {answer}"),
            Self::NoLibrarySource(path) => {
                write!(f, "comes without its library source ({} is missing)", path.display())
            }
            Self::TooOld(version) => write!(f, "is release {version}, before {OLDEST_RUSTC}"),
            Self::OtherLlvm { compiler, linker } => {
                write!(f, "has LLVM {compiler}, but bpf-linker has LLVM {linker}")
            }
        }
    }
}

/// Goes through the candidates with `probe` and takes the first that fits.
fn choose(
    candidates: Vec<Candidate>,
    llvm_major: Option<u32>,
    probe: impl Fn(&Candidate) -> Result<Compiler, Reason>,
) -> Result<(Compiler, Vec<Rejected>), Error> {
    let mut rejected = Vec::new();
    for candidate in candidates {
        match probe(&candidate).and_then(|compiler| fits(compiler, llvm_major)) {
            Ok(compiler) => return Ok((compiler, rejected)),
            // PATH has many directories without a rustc, which is no news.
            Err(Reason::Absent) if candidate.origin == Origin::Path => {}
            Err(reason) => rejected.push(Rejected { candidate, reason }),
        }
    }
    Err(Error::NoCompiler { rejected })
}

fn fits(compiler: Compiler, llvm_major: Option<u32>) -> Result<Compiler, Reason> {
    if compiler.version.release < OLDEST_RUSTC {
        return Err(Reason::TooOld(compiler.version.release));
    }
    match llvm_major {
        Some(linker) if linker != compiler.version.llvm.major => {
            Err(Reason::OtherLlvm { compiler: compiler.version.llvm, linker })
        }
        _ => Ok(compiler),
    }
}

/// Asks a compiler what it is and looks at what it holds.
fn probe(candidate: &Candidate) -> Result<Compiler, Reason> {
    let path = &candidate.path;
    if !path.is_file() {
        return Err(Reason::Absent);
    }
    let sysroot = PathBuf::from(ask(path, &["--print", "sysroot"])?.trim());
    let lock = sysroot.join(LIBRARY_LOCK);
    if !lock.is_file() {
        return Err(Reason::NoLibrarySource(lock));
    }
    let answer = ask(path, &["-vV"])?;
    let version = RustcVersion::parse(&answer).ok_or(Reason::Unusable(answer))?;
    Ok(Compiler {
        origin: candidate.origin,
        path: path.clone(),
        cargo: cargo_for(&sysroot),
        llvm_library: llvm_library(&sysroot, &version),
        version,
        sysroot,
    })
}

fn ask(rustc: &Path, arguments: &[&str]) -> Result<String, Reason> {
    let output = Command::new(rustc)
        .args(arguments)
        .output()
        .map_err(|error| Reason::Unusable(error.to_string()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(Reason::Unusable(stderr.trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The `cargo` to drive a compiler with. A rustup toolchain brings the one that knows its
/// library's layout. A distribution's own may be years older than its compiler, so there it
/// is the one that runs this program.
fn cargo_for(sysroot: &Path) -> PathBuf {
    let own = sysroot.join("bin").join("cargo");
    if sysroot.join("lib/rustlib/components").is_file() && own.is_file() {
        return own;
    }
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// The compiler's own LLVM, among the several that a system's library directory may hold.
fn llvm_library(sysroot: &Path, version: &RustcVersion) -> Option<PathBuf> {
    let lib = sysroot.join("lib");
    let directories = [
        lib.join(version.multiarch()),
        lib.join("rustlib").join(&version.host).join("lib"),
        sysroot.join("lib64"),
        lib,
    ];
    directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| is_llvm_library(name, version.llvm))
                && path.metadata().is_ok_and(|data| data.len() >= SMALLEST_LLVM_LIBRARY)
        })
}

/// Whether a file's name is that of the shared library of this LLVM: `libLLVM.so.22.1`,
/// `libLLVM.so.22.1-rust-1.97.0-nightly`, `libLLVM-22.so`, `libLLVM-22-rust-1.97.0-nightly.so`.
fn is_llvm_library(name: &str, llvm: Version) -> bool {
    let with_minor = format!("libLLVM.so.{}.{}", llvm.major, llvm.minor);
    let with_major = format!("libLLVM-{}", llvm.major);
    [with_minor, with_major].iter().any(|prefix| {
        name.strip_prefix(prefix.as_str())
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(origin: Origin, path: &str) -> Candidate {
        Candidate { origin, path: path.into() }
    }

    fn compiler(candidate: &Candidate, release: Version, llvm: Version) -> Compiler {
        Compiler {
            origin: candidate.origin,
            path: candidate.path.clone(),
            version: RustcVersion {
                text: format!("rustc {release}"),
                release,
                host: "x86_64-unknown-linux-gnu".to_owned(),
                llvm,
            },
            sysroot: "/".into(),
            cargo: "cargo".into(),
            llvm_library: None,
        }
    }

    fn all() -> Vec<Candidate> {
        vec![
            candidate(Origin::PinnedNightly, "/pinned"),
            candidate(Origin::Path, "/path"),
            candidate(Origin::System, "/system"),
        ]
    }

    const NEW: Version = Version::new(1, 97, 0);
    const LLVM_22: Version = Version::new(22, 1, 4);
    const LLVM_23: Version = Version::new(23, 1, 0);

    #[test]
    fn the_first_that_fits_is_chosen() {
        let (chosen, rejected) =
            choose(all(), Some(22), |c| Ok(compiler(c, NEW, LLVM_22))).unwrap();
        assert_eq!(chosen.path, PathBuf::from("/pinned"));
        assert!(rejected.is_empty());
    }

    #[test]
    fn a_compiler_without_its_source_is_passed_over() {
        let (chosen, rejected) = choose(all(), Some(22), |c| match c.origin {
            Origin::System => Ok(compiler(c, NEW, LLVM_22)),
            _ => Err(Reason::NoLibrarySource("/lock".into())),
        })
        .unwrap();
        assert_eq!(chosen.origin, Origin::System);
        assert_eq!(rejected.len(), 2);
    }

    #[test]
    fn a_compiler_with_another_llvm_is_passed_over() {
        let (chosen, rejected) = choose(all(), Some(22), |c| match c.origin {
            Origin::PinnedNightly => Ok(compiler(c, NEW, LLVM_23)),
            _ => Ok(compiler(c, NEW, LLVM_22)),
        })
        .unwrap();
        assert_eq!(chosen.origin, Origin::Path);
        assert_eq!(rejected[0].reason, Reason::OtherLlvm { compiler: LLVM_23, linker: 22 });
    }

    #[test]
    fn a_minor_difference_of_llvm_is_accepted() {
        let other_minor = Version::new(22, 7, 0);
        assert!(choose(all(), Some(22), |c| Ok(compiler(c, NEW, other_minor))).is_ok());
    }

    #[test]
    fn any_llvm_fits_a_linker_that_does_not_tell_its_own() {
        assert!(choose(all(), None, |c| Ok(compiler(c, NEW, LLVM_23))).is_ok());
    }

    #[test]
    fn an_old_compiler_is_passed_over() {
        let old = Version::new(1, 85, 0);
        let error = choose(all(), Some(22), |c| Ok(compiler(c, old, LLVM_22))).unwrap_err();
        assert!(error.to_string().contains("is release 1.85.0, before 1.95.0"));
    }

    #[test]
    fn the_error_names_what_was_tried_and_both_ways_out() {
        let error =
            choose(all(), Some(22), |_| Err(Reason::NoLibrarySource("/lock".into()))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("/system (distribution): comes without its library source"));
        assert!(text.contains("cargo xtask setup"));
        assert!(text.contains("rustup toolchain install nightly-2026-05-20"));
    }

    #[test]
    fn llvm_library_is_known_by_its_name() {
        for name in [
            "libLLVM.so.22.1",
            "libLLVM.so.22.1-rust-1.97.0-nightly",
            "libLLVM-22.so",
            "libLLVM-22-rust-1.97.0-nightly.so",
        ] {
            assert!(is_llvm_library(name, LLVM_22), "{name} is LLVM 22.1");
        }
        for name in ["libLLVM-14.so", "libLLVM-2.so", "libLLVM.so.22.10", "libLLVMCore.a"] {
            assert!(!is_llvm_library(name, LLVM_22), "{name} is not LLVM 22.1");
        }
    }
}

//! What can go wrong on the way to an object, each with the next step for the developer.

use super::{
    OLDEST_RUSTC, PINNED_LINKER, PINNED_LLVM_MAJOR, PINNED_NIGHTLY, compiler::Rejected,
    version::Version,
};
use std::{fmt, io, path::PathBuf};

/// Why there is no BPF object.
#[derive(Debug)]
pub(crate) enum Error {
    /// No `bpf-linker` in any of the places where one is looked for.
    NoLinker {
        /// The files that were looked for.
        tried: Vec<PathBuf>,
    },
    /// A `bpf-linker` that does not run or does not say its version.
    LinkerUnusable {
        /// The linker.
        path: PathBuf,
        /// What it answered.
        answer: String,
    },
    /// A `bpf-linker` from before the pinned release.
    LinkerTooOld {
        /// The linker.
        path: PathBuf,
        /// Its release.
        version: Version,
    },
    /// No compiler that holds its library source and fits the linker.
    NoCompiler {
        /// Every compiler that was tried, with what spoke against it.
        rejected: Vec<Rejected>,
    },
    /// The compiler has no shared LLVM library, and the linker needs one.
    NoLlvmLibrary {
        /// The compiler.
        compiler: PathBuf,
        /// Its LLVM.
        llvm: Version,
        /// The linker.
        linker: PathBuf,
    },
    /// A file or directory could not be made or read.
    File {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// cargo itself could not be started.
    CargoNotStarted {
        /// The cargo.
        cargo: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// cargo ran and failed; its own messages are on standard error.
    BuildFailed {
        /// The command, so that it can be repeated by hand.
        command: String,
    },
    /// cargo succeeded but the object is not where it belongs.
    NoObject {
        /// Where it was expected.
        path: PathBuf,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLinker { tried } => {
                writeln!(f, "no bpf-linker, which links the XDP program. Looked for:")?;
                for path in tried {
                    writeln!(f, "  {}", path.display())?;
                }
                write_install(f)
            }
            Self::LinkerUnusable { path, answer } => {
                writeln!(f, "{} does not tell its version: {answer}", path.display())?;
                write_install(f)
            }
            Self::LinkerTooOld { path, version } => {
                writeln!(
                    f,
                    "{} is release {version}; the XDP program needs {PINNED_LINKER} or later",
                    path.display()
                )?;
                write_install(f)
            }
            Self::NoCompiler { rejected } => {
                writeln!(
                    f,
                    "no compiler for the XDP program: it takes a rustc {OLDEST_RUSTC} or later \
                     that comes with its library source and shares bpf-linker's LLVM. Tried:"
                )?;
                for one in rejected {
                    writeln!(f, "  {one}")?;
                }
                write_install(f)
            }
            Self::NoLlvmLibrary { compiler, llvm, linker } => write!(
                f,
                "{} loads its LLVM from the compiler, but {} comes without a shared library of \
                 LLVM {llvm}. Install a bpf-linker that brings its own:\n  \
                 cargo install bpf-linker --no-default-features --features llvm-{}\n\
                 with LLVM's development package, and name it in EXOGATE_BPF_LINKER",
                linker.display(),
                compiler.display(),
                llvm.major,
            ),
            Self::File { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
            Self::CargoNotStarted { cargo, source } => {
                write!(f, "cannot start {}: {source}", cargo.display())
            }
            Self::BuildFailed { command } => write!(
                f,
                "the XDP program did not build; the messages above say why. It was built by\n  \
                 {command}"
            ),
            Self::NoObject { path } => write!(
                f,
                "cargo built the XDP program but left no {}; is CARGO_TARGET_DIR or \
                 build.target-dir overridden in a cargo configuration file?",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. } | Self::CargoNotStarted { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Both ways to a fitting compiler and linker.
pub(crate) fn write_install(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "Install what is missing (LLVM {PINNED_LLVM_MAJOR}; needs no root) with\n  \
         cargo xtask setup\n\
         or by hand with\n  \
         rustup toolchain install {PINNED_NIGHTLY} --profile minimal --component rust-src\n  \
         cargo install bpf-linker --version {PINNED_LINKER} --locked\n\
         or name others in EXOGATE_BPF_RUSTC and EXOGATE_BPF_LINKER"
    )
}

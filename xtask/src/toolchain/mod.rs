//! What compiles the XDP program.
//!
//! A BPF object needs `core` built from source for a target that no compiler ships
//! ready-made, and a linker of its own. That takes three things that must fit together: a
//! `rustc`, the library source of *exactly* that `rustc`, and a `bpf-linker` that reads the
//! bitcode of that `rustc`'s LLVM. Machines have these in different places (a rustup nightly
//! with `rust-src`, Debian's `rustc-web` and `rust-web-src`, or what `cargo xtask setup`
//! unpacked), and a wrong pairing fails late, on missing lang items or unreadable bitcode.
//!
//! So the choice is made here, once, for both users: the build script of `exogate`, which
//! includes this directory by path, and `xtask`, which also prints the choice (`doctor`) and
//! installs what is missing (`setup`). The order is
//!
//! 1. `EXOGATE_BPF_RUSTC` and `EXOGATE_BPF_LINKER`, which are final: if they do not fit, that
//!    is an error and nothing else is tried;
//! 2. the pinned nightly, if rustup has it with `rust-src`;
//! 3. the first compiler whose own sysroot holds its library source: those on `PATH`, in
//!    exogate's tools directory, in `/usr`, and rustup's other toolchains;
//! 4. an error that lists what was tried and prints both ways to install a fitting one.
//!
//! A compiler is passed over when its LLVM major is not the linker's. Standard library only:
//! the build script must not wait for dependencies.

mod compiler;
mod error;
mod linker;
mod object;
mod places;
mod version;

pub(crate) use compiler::{Compiler, Rejected};
pub(crate) use error::Error;
pub(crate) use linker::Linker;
pub(crate) use object::{Endian, ObjectRequest, bpf_target_dir, build_object};
pub(crate) use places::{ENVIRONMENT, Places};

/// The nightly that rustup machines use: rustc 1.97.0-nightly of 2026-05-19, LLVM 22.1.4.
/// rustup names a nightly after the day on which it was published, one day after its source.
pub(crate) const PINNED_NIGHTLY: &str = "nightly-2026-05-20";

/// The LLVM major of everything pinned here.
pub(crate) const PINNED_LLVM_MAJOR: u32 = 22;

/// The release of `bpf-linker` that `cargo xtask setup` installs, and the oldest accepted.
pub(crate) const PINNED_LINKER: version::Version = version::Version::new(0, 10, 4);

/// The oldest compiler that builds the program: the workspace's `rust-version`.
pub(crate) const OLDEST_RUSTC: version::Version = version::Version::new(1, 95, 0);

/// A compiler and a linker that fit together.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler that owns its library source.
    pub(crate) compiler: Compiler,
    /// The linker that reads this compiler's bitcode.
    pub(crate) linker: Linker,
    /// Compilers that came first but were passed over, and why.
    pub(crate) rejected: Vec<Rejected>,
}

/// Chooses compiler and linker, or says what was tried and what to install.
pub(crate) fn resolve(places: &Places) -> Result<Toolchain, Error> {
    let linker = Linker::find(places)?;
    let (compiler, rejected) = Compiler::find(places, linker.llvm.major())?;
    if linker.llvm.is_loaded_at_run_time() && compiler.llvm_library.is_none() {
        return Err(Error::NoLlvmLibrary {
            compiler: compiler.path,
            llvm: compiler.version.llvm,
            linker: linker.path,
        });
    }
    Ok(Toolchain { compiler, linker, rejected })
}

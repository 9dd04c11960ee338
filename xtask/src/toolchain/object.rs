//! Building the object: one child `cargo`, in a target directory of its own.
//!
//! The child is started from inside another cargo (a build script, or `cargo run`), and three
//! things of the parent must not reach it. Its *target directory* is locked while the build
//! script runs, so sharing it would wait for ever. Its *environment* is full of variables that
//! are configuration to cargo: the host's `RUSTFLAGS`, clippy's wrapper, the target's `cfg`.
//! And its *profile* is tuned for the agent, while the kernel's verifier judges what comes out
//! here: the program is compiled the same way whatever the agent's profile says.

use super::{Error, Toolchain, version::Version};
use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

const PACKAGE: &str = "exogate-ebpf";
const BINARY: &str = "exogate-xdp";

/// Byte order of the machine that loads the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endian {
    /// Least significant byte first: x86-64, arm64, RISC-V.
    Little,
    /// Most significant byte first: s390x.
    Big,
}

impl Endian {
    /// The BPF target of this byte order.
    fn target(self) -> &'static str {
        match self {
            Self::Little => "bpfel-unknown-none",
            Self::Big => "bpfeb-unknown-none",
        }
    }
}

/// What to build, and where.
#[derive(Clone, Debug)]
pub(crate) struct ObjectRequest<'a> {
    /// The workspace's root directory.
    pub(crate) workspace: &'a Path,
    /// A target directory that no running cargo holds; see [`bpf_target_dir`].
    pub(crate) target_dir: &'a Path,
    /// The architecture of the machine that loads it, in Rust's name for it.
    pub(crate) arch: &'a str,
    /// The byte order of the machine that loads it.
    pub(crate) endian: Endian,
    /// An example of the package instead of the XDP program.
    pub(crate) example: Option<&'a str>,
}

/// The target directory for BPF objects that belongs to a file inside cargo's target
/// directory (a build script's `OUT_DIR`, or a program that cargo built). It is the same for
/// every profile and target, so that the program and `core` are built once.
pub(crate) fn bpf_target_dir(inside: &Path) -> PathBuf {
    let is_tagged = |directory: &&Path| directory.join("CACHEDIR.TAG").is_file();
    inside
        .ancestors()
        .skip_while(|directory| !is_tagged(directory))
        // A target that was named has a directory of its own in it, tagged too.
        .take_while(is_tagged)
        .last()
        .unwrap_or(inside)
        .join("bpf")
}

/// Builds the object and returns its path. cargo's messages go to standard error.
pub(crate) fn build_object(
    toolchain: &Toolchain,
    request: &ObjectRequest<'_>,
) -> Result<PathBuf, Error> {
    let mut command = cargo_command(toolchain, request)?;
    let status = command.status().map_err(|source| Error::CargoNotStarted {
        cargo: toolchain.compiler.cargo.clone(),
        source,
    })?;
    if !status.success() {
        return Err(Error::BuildFailed { command: by_hand(&command) });
    }
    let directory = request.target_dir.join(request.endian.target()).join("release");
    let path = match request.example {
        Some(example) => directory.join("examples").join(example),
        None => directory.join(BINARY),
    };
    if !path.is_file() {
        return Err(Error::NoObject { path });
    }
    Ok(path)
}

fn cargo_command(toolchain: &Toolchain, request: &ObjectRequest<'_>) -> Result<Command, Error> {
    let Toolchain { compiler, linker, .. } = toolchain;
    let mut command = Command::new(&compiler.cargo);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(belongs_to_parent) {
            command.env_remove(name);
        }
    }
    command
        .current_dir(request.workspace)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .args(["build", "--release", "--locked", "--package", PACKAGE])
        .args(match request.example {
            Some(example) => ["--example", example],
            None => ["--bin", BINARY],
        })
        .args(["--target", request.endian.target(), "-Zbuild-std=core", "--target-dir"])
        .arg(request.target_dir)
        // Lets a stable compiler build `core`. It must stay with this child: with it set,
        // build scripts of ordinary dependencies switch unstable features on.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &compiler.path)
        // Empty is "none", also where a configuration file names a wrapper.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&linker.path, request.arch))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none");
    if let Some(library) = &compiler.llvm_library {
        let directory = lone_library(request.target_dir, library, compiler.version.llvm)?;
        command.env("LD_LIBRARY_PATH", directory);
    }
    Ok(command)
}

/// Flags for the BPF target; the host's build scripts and macros do not get them.
fn rustflags(linker: &Path, arch: &str) -> OsString {
    let mut flags = OsString::from("-Clinker=");
    flags.push(linker);
    for flag in [
        // Type information for maps and functions, and source lines in the verifier's log.
        "-Clink-arg=--btf",
        "-Cdebuginfo=2",
        // Instructions of 32 bits, which the verifier follows since Linux 5.7: without them
        // every number of 32 bits is widened by two shifts before it is compared.
        "-Ctarget-cpu=v3",
        &format!("--cfg=bpf_target_arch=\"{arch}\""),
    ] {
        flags.push("\u{1f}");
        flags.push(flag);
    }
    flags
}

/// Whether an environment variable is the parent cargo's business and not the child's.
fn belongs_to_parent(name: &str) -> bool {
    /// Configuration of the developer's machine: where crates come from, how they are fetched.
    const MACHINE: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    const PARENT: [&str; 9] = [
        "DEBUG",
        "HOST",
        "LD_LIBRARY_PATH",
        "MAKEFLAGS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTFLAGS",
        "TARGET",
    ];
    if name.starts_with("CARGO_") {
        return !MACHINE.iter().any(|prefix| name.starts_with(prefix));
    }
    PARENT.contains(&name)
        || name == "RUSTC"
        || name.starts_with("RUSTC_")
        || name.starts_with("RUSTDOC")
        || name.starts_with("DEP_")
}

/// A directory that holds the compiler's LLVM library and nothing else, because `bpf-linker`
/// takes the first `libLLVM*` that it meets, and system directories hold several.
fn lone_library(target_dir: &Path, library: &Path, llvm: Version) -> Result<PathBuf, Error> {
    let directory = target_dir.join(format!("llvm-{llvm}"));
    let link = directory.join("libLLVM.so");
    if fs::read_link(&link).is_ok_and(|known| known == library) {
        return Ok(directory);
    }
    let failed = |path: &Path, source: io::Error| Error::File {
        action: "make a link to LLVM at",
        path: path.to_path_buf(),
        source,
    };
    fs::create_dir_all(&directory).map_err(|source| failed(&directory, source))?;
    // Made elsewhere and renamed, so that a build at the same time never meets a gap.
    let new = target_dir.join(format!("llvm.{}", process::id()));
    symlink(library, &new).map_err(|source| failed(&new, source))?;
    fs::rename(&new, &link).map_err(|source| failed(&link, source))?;
    Ok(directory)
}

/// The command as one would type it.
fn by_hand(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy().replace('\u{1f}', "'$'\\x1f''");
        Some(format!("{}='{value}'", name.to_string_lossy()))
    });
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned());
    set.chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parents_build_settings_stay_behind() {
        for name in [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_CFG_TARGET_ARCH",
            "CARGO_MAKEFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
            "LD_LIBRARY_PATH",
            "OUT_DIR",
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
        ] {
            assert!(belongs_to_parent(name), "{name} would change the object");
        }
    }

    #[test]
    fn every_profile_and_target_has_its_object_from_one_place() {
        let scratch = env::temp_dir().join(format!("object-{}", process::id()));
        let target = scratch.join("target");
        let triple = target.join("x86_64-unknown-linux-gnu");
        for directory in [&target, &triple] {
            fs::create_dir_all(directory).unwrap();
            fs::write(directory.join("CACHEDIR.TAG"), "").unwrap();
        }
        let places = [&target, &triple]
            .map(|directory| bpf_target_dir(&directory.join("debug/build/exogate-1/out")));
        fs::remove_dir_all(&scratch).unwrap();
        assert_eq!(places, [target.join("bpf"), target.join("bpf")]);
    }

    #[test]
    fn the_machines_settings_are_inherited() {
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_REGISTRY_DEFAULT", "PATH", "HOME"] {
            assert!(!belongs_to_parent(name), "{name} is the machine's");
        }
        for name in ["RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "TARGETS"] {
            assert!(!belongs_to_parent(name), "{name} is the machine's");
        }
    }

    #[test]
    fn flags_keep_a_linker_path_with_a_space_together() {
        let flags = rustflags(Path::new("/my tools/bpf-linker"), "aarch64");
        let flags: Vec<&str> = flags.to_str().unwrap().split('\u{1f}').collect();
        assert_eq!(flags[0], "-Clinker=/my tools/bpf-linker");
        assert_eq!(flags[4], "--cfg=bpf_target_arch=\"aarch64\"");
    }

    #[test]
    fn byte_order_chooses_the_target() {
        assert_eq!(Endian::Little.target(), "bpfel-unknown-none");
        assert_eq!(Endian::Big.target(), "bpfeb-unknown-none");
    }
}

//! Where compilers and linkers may be, and in which order they are tried.
//!
//! Everything that depends on the machine (environment, home directory, directory listings)
//! is read once into [`Places`]; the order is then a pure function of it.

use super::{PINNED_LINKER, PINNED_NIGHTLY};
use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
};

/// The environment variables by which a developer changes the choice. A build script must run
/// again when one of them changes. `PATH` is not among them: rustup lengthens it at every
/// level of nesting, and each time everything would be built again.
pub(crate) const ENVIRONMENT: [&str; 3] =
    ["EXOGATE_BPF_RUSTC", "EXOGATE_BPF_LINKER", "EXOGATE_TOOLS"];

/// Where `cargo xtask setup` puts an unpacked Debian compiler: this prefix and its version.
pub(crate) const UNPACKED_COMPILER: &str = "rustc-web-";

/// What this machine offers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places {
    /// `EXOGATE_BPF_RUSTC`.
    pub(crate) compiler_override: Option<PathBuf>,
    /// `EXOGATE_BPF_LINKER`.
    pub(crate) linker_override: Option<PathBuf>,
    /// exogate's own tools directory, whether it exists or not.
    pub(crate) tools: Option<PathBuf>,
    /// Compilers unpacked in the tools directory, newest first.
    pub(crate) unpacked_compilers: Vec<PathBuf>,
    /// Directories of rustup's toolchains.
    pub(crate) rustup_toolchains: Vec<PathBuf>,
    /// The directories of `PATH`.
    pub(crate) path: Vec<PathBuf>,
}

/// Which of the rules a compiler comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Named by the developer.
    Override,
    /// rustup's toolchain of the pinned date.
    PinnedNightly,
    /// The first one on `PATH`.
    Path,
    /// Unpacked by `cargo xtask setup`.
    Tools,
    /// Installed by the distribution.
    System,
    /// Any other of rustup's toolchains.
    Rustup,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Override => "EXOGATE_BPF_RUSTC",
            Self::PinnedNightly => "pinned nightly",
            Self::Path => "PATH",
            Self::Tools => "tools directory",
            Self::System => "distribution",
            Self::Rustup => "rustup",
        })
    }
}

/// A compiler that may be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The rule.
    pub(crate) origin: Origin,
    /// The file.
    pub(crate) path: PathBuf,
}

impl Places {
    /// Looks around on this machine.
    pub(crate) fn of_this_machine() -> Self {
        let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let path_of =
            |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let tools = path_of("EXOGATE_TOOLS").or_else(|| {
            let cache = path_of("XDG_CACHE_HOME")
                .filter(|cache| cache.is_absolute())
                .or_else(|| home.as_ref().map(|home| home.join(".cache")))?;
            Some(cache.join("exogate").join("tools"))
        });
        let rustup = path_of("RUSTUP_HOME").or_else(|| home.map(|home| home.join(".rustup")));
        let mut unpacked = tools.as_deref().map(list).unwrap_or_default();
        unpacked.retain(|path| file_name(path).starts_with(UNPACKED_COMPILER));
        unpacked.reverse();
        Self {
            compiler_override: path_of("EXOGATE_BPF_RUSTC"),
            linker_override: path_of("EXOGATE_BPF_LINKER"),
            tools,
            unpacked_compilers: unpacked
                .into_iter()
                .map(|directory| directory.join("bin").join("rustc"))
                .collect(),
            rustup_toolchains: rustup
                .map(|rustup| list(&rustup.join("toolchains")))
                .unwrap_or_default(),
            path: directories_of(&env::var_os("PATH").unwrap_or_default()),
        }
    }

    /// The compilers to try, first choice first. An override stands alone.
    pub(crate) fn compilers(&self) -> Vec<Candidate> {
        if let Some(path) = &self.compiler_override {
            return vec![Candidate { origin: Origin::Override, path: path.clone() }];
        }
        let (pinned, other): (Vec<_>, Vec<_>) = self
            .rustup_toolchains
            .iter()
            .partition(|directory| file_name(directory).starts_with(PINNED_NIGHTLY));
        let in_toolchain = |directory: &PathBuf| directory.join("bin").join("rustc");
        let groups: [(Origin, Vec<PathBuf>); 5] = [
            (Origin::PinnedNightly, pinned.into_iter().map(in_toolchain).collect()),
            (Origin::Path, self.path.iter().map(|directory| directory.join("rustc")).collect()),
            (Origin::Tools, self.unpacked_compilers.clone()),
            (Origin::System, vec![PathBuf::from("/usr/bin/rustc")]),
            (Origin::Rustup, other.into_iter().map(in_toolchain).collect()),
        ];
        let mut candidates: Vec<Candidate> = Vec::new();
        for (origin, paths) in groups {
            for path in paths {
                if candidates.iter().all(|known| known.path != path) {
                    candidates.push(Candidate { origin, path });
                }
            }
        }
        candidates
    }

    /// The linkers to try, first choice first. An override stands alone.
    pub(crate) fn linkers(&self) -> Vec<PathBuf> {
        if let Some(path) = &self.linker_override {
            return vec![path.clone()];
        }
        let installed = self.linker_home().map(|home| home.join("bin").join("bpf-linker"));
        let on_path = self.path.iter().map(|directory| directory.join("bpf-linker"));
        installed.into_iter().chain(on_path).collect()
    }

    /// Where `cargo xtask setup` installs the pinned linker.
    pub(crate) fn linker_home(&self) -> Option<PathBuf> {
        Some(self.tools.as_ref()?.join(format!("bpf-linker-{PINNED_LINKER}")))
    }
}

/// The directories that a `PATH` names, each once.
fn directories_of(path: &OsStr) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in env::split_paths(path) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// The entries of a directory in order of their names; none if there is no such directory.
fn list(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    entries.sort();
    entries
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            tools: Some("/tools".into()),
            unpacked_compilers: vec!["/tools/rustc-web-1.96.0/bin/rustc".into()],
            rustup_toolchains: vec![
                "/rustup/nightly-2026-05-20-x86_64-unknown-linux-gnu".into(),
                "/rustup/stable-x86_64-unknown-linux-gnu".into(),
            ],
            path: vec!["/cargo/bin".into(), "/usr/bin".into()],
            ..Places::default()
        }
    }

    fn order(places: &Places) -> Vec<(Origin, String)> {
        places
            .compilers()
            .into_iter()
            .map(|candidate| (candidate.origin, candidate.path.display().to_string()))
            .collect()
    }

    #[test]
    fn the_pinned_nightly_comes_first_and_other_toolchains_last() {
        let expected = [
            (
                Origin::PinnedNightly,
                "/rustup/nightly-2026-05-20-x86_64-unknown-linux-gnu/bin/rustc",
            ),
            (Origin::Path, "/cargo/bin/rustc"),
            (Origin::Path, "/usr/bin/rustc"),
            (Origin::Tools, "/tools/rustc-web-1.96.0/bin/rustc"),
            (Origin::Rustup, "/rustup/stable-x86_64-unknown-linux-gnu/bin/rustc"),
        ];
        assert_eq!(order(&places()), expected.map(|(origin, path)| (origin, path.to_owned())));
    }

    #[test]
    fn the_distribution_is_tried_even_if_path_leaves_it_out() {
        let places = Places { path: Vec::new(), ..places() };
        assert!(order(&places).contains(&(Origin::System, "/usr/bin/rustc".to_owned())));
    }

    #[test]
    fn a_directory_that_path_repeats_is_searched_once() {
        assert_eq!(
            directories_of(OsStr::new("/a:/b:/a")),
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
    }

    #[test]
    fn an_override_stands_alone() {
        let places = Places {
            compiler_override: Some("/my/rustc".into()),
            linker_override: Some("/my/bpf-linker".into()),
            ..places()
        };
        assert_eq!(order(&places), [(Origin::Override, "/my/rustc".to_owned())]);
        assert_eq!(places.linkers(), [PathBuf::from("/my/bpf-linker")]);
    }

    #[test]
    fn the_installed_linker_comes_before_those_on_path() {
        assert_eq!(
            places().linkers(),
            [
                PathBuf::from("/tools/bpf-linker-0.10.4/bin/bpf-linker"),
                PathBuf::from("/cargo/bin/bpf-linker"),
                PathBuf::from("/usr/bin/bpf-linker"),
            ]
        );
    }
}

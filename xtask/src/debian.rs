//! Debian's compiler, unpacked instead of installed.
//!
//! `rustc-web` and `rust-web-src` are a compiler and its library source of the same release,
//! built for stable Debian's needs. apt is asked for them with lists and cache of our own, so
//! that this works as a normal user and on a machine where nobody ever ran `apt-get update`;
//! apt still checks the archive's signatures. The packages are unpacked beside each other,
//! which keeps their relative links right, and a small script starts the compiler with its
//! own libraries. Of the libraries that it shares with the rest of the system, only those
//! are unpacked that the system lacks. Kernels for guests are fetched the same way.

use crate::{
    command::{capture, find_program, run, run_download},
    setup::install_as,
};
use anyhow::{Context, Result, anyhow, bail};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// What is asked for; the rest follows from dependencies.
const COMPILER: &str = "rustc-web";
const SOURCE: &str = "rust-web-src";

/// The shell of a guest.
const BUSYBOX: &str = "busybox-static";
/// The modules of a guest without a disk.
const GUEST_MODULES: [&str; 1] = ["veth"];
/// Debian, and who signs it.
const ARCHIVE: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Starts the compiler with the libraries that were unpacked with it. Wherever the directory
/// is moved, the script finds them.
const LAUNCHER: &str = r#"#!/bin/sh
# Made by `cargo xtask setup`.
root="${0%/*}/.."
LD_LIBRARY_PATH="$root/usr/lib/@MULTIARCH@:$root/lib/@MULTIARCH@${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
exec "$root/usr/bin/rustc" "$@"
"#;

/// Whether this is Debian itself: its derivatives do not carry the packages.
pub(crate) fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "ID=debian"))
}

/// Downloads the compiler, its source and the libraries that it lacks, and unpacks them in
/// `tools`.
pub(crate) fn unpack_compiler(tools: &Path) -> Result<()> {
    for program in ["apt-get", "dpkg-deb", "dpkg-query"] {
        if find_program(program).is_none() {
            bail!("{program} is not installed");
        }
    }
    let apt = Apt::new(tools)?;
    if let Err(error) = run_download(apt.command().args(["update", "--error-on=any"])) {
        // A foreign archive that is down is no reason to give up: Debian's may have answered.
        eprintln!("setup: {error:#}; going on with the lists that did arrive");
    }
    let closure = apt.closure(&[COMPILER, SOURCE])?;
    let version = closure
        .iter()
        .find(|package| package.name == COMPILER)
        .map(|package| package.version.clone())
        .ok_or_else(|| anyhow!("apt offers no {COMPILER}"))?;
    let wanted = wanted(&closure, &installed()?);
    let home = tools.join(format!("{COMPILER}-{}", directory_name(&version)));

    install_as(&home, |partial| {
        apt.unpack(&wanted, partial)?;
        trim(partial)?;
        write_launcher(partial)
    })?;
    apt.clean()
}

/// Downloads a kernel by the name of a package that depends on it, and a static busybox,
/// and unpacks both in `home`.
pub(crate) fn unpack_kernel(package: &str, tools: &Path, home: &Path) -> Result<()> {
    let apt = Apt::new(tools)?;
    if let Err(error) = run_download(apt.command().args(["update", "--error-on=any"])) {
        eprintln!("setup: {error:#}; going on with the lists that did arrive");
    }
    let wanted: Vec<String> = apt
        .closure(&[package, BUSYBOX])?
        .into_iter()
        .filter(|Package { name, .. }| name.starts_with("linux-image-") || name == BUSYBOX)
        .map(|Package { name, version }| format!("{name}={version}"))
        .collect();
    install_as(home, |partial| apt.unpack(&wanted, partial))?;
    apt.clean()
}

/// Downloads the kernel of another suite than this machine's, and a static busybox, and
/// keeps of both what a guest needs that has no disk.
pub(crate) fn unpack_kernel_of(suite: &str, package: &str, home: &Path) -> Result<()> {
    install_as(home, |partial| {
        let apt = Apt::of_suite(partial, suite)?;
        run_download(apt.command().args(["update", "--error-on=any"]))?;
        let wanted: Vec<String> = apt
            .closure(&[package, BUSYBOX])?
            .into_iter()
            .filter(|Package { name, .. }| {
                name == BUSYBOX
                    || (name.starts_with("linux-image-") && name != package)
                    || name.starts_with("linux-binary-")
                    || name.starts_with("linux-modules-")
            })
            .map(|Package { name, version }| format!("{name}={version}"))
            .collect();
        apt.unpack(&wanted, partial)?;
        apt.clean()?;
        keep_modules(partial)?;
        for rest in ["usr/share", "etc"] {
            let rest = partial.join(rest);
            if rest.is_dir() {
                fs::remove_dir_all(&rest)
                    .with_context(|| format!("cannot remove {}", rest.display()))?;
            }
        }
        Ok(())
    })
}

/// Removes all modules but those that guests without a disk load, and unpacks these.
fn keep_modules(root: &Path) -> Result<()> {
    let mut directories = vec![root.join("lib/modules"), root.join("usr/lib/modules")];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if !name.contains(".ko") {
                // Newer packages have the kernel itself here.
            } else if !GUEST_MODULES.iter().any(|kept| name.starts_with(&format!("{kept}.ko"))) {
                fs::remove_file(entry.path())?;
            } else if name.ends_with(".xz") {
                run(Command::new("xz").arg("--decompress").arg(entry.path()))?;
            }
        }
    }
    Ok(())
}

/// A package and the version that apt would install.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
}

/// apt with state of its own.
struct Apt {
    state: PathBuf,
    /// Where packages come from, if it is not where this machine's come from.
    sources: Option<PathBuf>,
}

impl Apt {
    fn new(tools: &Path) -> Result<Self> {
        let state = tools.join("apt");
        for directory in ["lists/partial", "cache/archives/partial"] {
            let directory = state.join(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        Ok(Self { state, sources: None })
    }

    /// One that knows a suite of Debian alone, whichever this machine has.
    fn of_suite(directory: &Path, suite: &str) -> Result<Self> {
        let sources = directory.join("sources.list");
        let line = format!("deb [signed-by={KEYRING}] {ARCHIVE} {suite} main\n");
        fs::write(&sources, line).context("cannot write the sources of packages")?;
        Ok(Self { sources: Some(sources), ..Self::new(directory)? })
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-o"]);
        command.arg(format!("Dir::State::lists={}", self.state.join("lists").display()));
        command.arg("-o");
        command.arg(format!("Dir::Cache={}", self.state.join("cache").display()));
        for option in [
            // As root, apt would drop to a user who cannot write here.
            "APT::Sandbox::User=root",
            "Acquire::Languages=none",
            "Acquire::Retries=3",
        ] {
            command.args(["-o", option]);
        }
        if let Some(sources) = &self.sources {
            command.arg("-o").arg(format!("Dir::Etc::sourcelist={}", sources.display()));
            command.args(["-o", "Dir::Etc::sourceparts=/dev/null"]);
        }
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Everything that packages depend on, as if nothing were installed.
    fn closure(&self, packages: &[&str]) -> Result<Vec<Package>> {
        let answer = capture(
            self.command()
                .args(["-o", "Dir::State::status=/dev/null", "--simulate"])
                .args(["--no-install-recommends", "install"])
                .args(packages),
        )?;
        Ok(parse_simulation(&answer))
    }

    /// Downloads packages and unpacks them beside each other.
    fn unpack(&self, packages: &[String], home: &Path) -> Result<()> {
        let archives = home.join("archives");
        fs::create_dir_all(&archives)?;
        run_download(self.command().arg("download").args(packages).current_dir(&archives))?;
        eprintln!("setup: unpacking {} packages", packages.len());
        for entry in fs::read_dir(&archives)? {
            run(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(home))?;
        }
        fs::remove_dir_all(&archives).context("cannot remove the archives")
    }

    /// Removes lists and cache: they are only worth keeping while they are fresh.
    fn clean(&self) -> Result<()> {
        fs::remove_dir_all(&self.state)
            .with_context(|| format!("cannot remove {}", self.state.display()))
    }
}

/// Reads lines such as `Inst libllvm22 (1:22.1.8-1~deb12u1 Debian-Security:12 [amd64])`.
fn parse_simulation(answer: &str) -> Vec<Package> {
    answer
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("Inst ")?.split_whitespace();
            let name = words.next()?.split(':').next()?;
            let version = words.find_map(|word| word.strip_prefix('('))?;
            Some(Package { name: name.to_owned(), version: version.to_owned() })
        })
        .collect()
}

/// The packages that are installed on this machine.
fn installed() -> Result<BTreeSet<String>> {
    let answer =
        capture(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}${Package}\n"]))?;
    Ok(answer
        .lines()
        .filter_map(|line| line.strip_prefix("ii ").map(|name| name.trim().to_owned()))
        .collect())
}

/// What has to be unpacked: the compiler's own packages always, even if they are installed
/// (an installed compiler was found wanting), and the shared libraries that the system lacks.
fn wanted(closure: &[Package], installed: &BTreeSet<String>) -> Vec<String> {
    closure
        .iter()
        .filter(|Package { name, .. }| {
            let own = [COMPILER, SOURCE].contains(&name.as_str())
                || name.starts_with("libstd-rust-web")
                || name.starts_with("libllvm");
            let library = name.starts_with("lib") && !name.ends_with("-dev");
            own || (library && !installed.contains(name))
        })
        .map(|Package { name, version }| format!("{name}={version}"))
        .collect()
}

/// Removes what takes space and is never read: all sources but the library's, and manuals.
fn trim(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root.join("usr/src"))? {
        for entry in fs::read_dir(entry?.path())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && entry.file_name() != "library" {
                fs::remove_dir_all(entry.path())?;
            }
        }
    }
    fs::remove_dir_all(root.join("usr/share/man")).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    Ok(())
}

fn write_launcher(root: &Path) -> Result<()> {
    let multiarch = capture(Command::new("dpkg-architecture").arg("-qDEB_HOST_MULTIARCH"))
        .map(|answer| answer.trim().to_owned())
        .or_else(|_| find_multiarch(root))?;
    let bin = root.join("bin");
    // Packages of a merged /usr ship no /bin, so that the name is free.
    fs::create_dir_all(&bin)?;
    let launcher = bin.join("rustc");
    fs::write(&launcher, LAUNCHER.replace("@MULTIARCH@", &multiarch))?;
    fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The library directory that holds the compiler's driver.
fn find_multiarch(root: &Path) -> Result<String> {
    for entry in fs::read_dir(root.join("usr/lib"))? {
        let entry = entry?;
        let Ok(files) = fs::read_dir(entry.path()) else { continue };
        let holds_driver = files
            .flatten()
            .any(|file| file.file_name().to_string_lossy().starts_with("librustc_driver-"));
        if holds_driver {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("the packages hold no librustc_driver under {}", root.join("usr/lib").display())
}

/// A version as part of a directory's name.
fn directory_name(version: &str) -> String {
    version.replace(|c: char| !c.is_ascii_alphanumeric() && !".-~".contains(c), "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMULATION: &str = "\
Reading package lists...
Inst libgcc-s1 (12.2.0-14+deb12u1 Debian:12.15/oldstable [amd64]) []
Inst libz3-4 (4.8.12-3.1 Debian:12.15/oldstable [amd64])
Inst gcc-12 (12.2.0-14+deb12u1 Debian:12.15/oldstable [amd64])
Inst libc6-dev (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])
Inst libllvm22 [1:22.1.7] (1:22.1.8-1~deb12u1 Debian-Security:12 [amd64])
Inst libstd-rust-web-dev (1.96.0+dfsg1-1~deb12u2 Debian-Security:12 [amd64])
Inst rust-web-src (1.96.0+dfsg1-1~deb12u2 Debian-Security:12 [all])
Inst rustc-web (1.96.0+dfsg1-1~deb12u2 Debian-Security:12 [amd64])
Conf rustc-web (1.96.0+dfsg1-1~deb12u2 Debian-Security:12 [amd64])
";

    #[test]
    fn simulation_gives_names_and_new_versions() {
        let packages = parse_simulation(SIMULATION);
        assert_eq!(packages.len(), 8);
        let llvm = packages.iter().find(|package| package.name == "libllvm22").unwrap();
        assert_eq!(llvm.version, "1:22.1.8-1~deb12u1");
    }

    #[test]
    fn libraries_that_the_system_has_are_left_to_it() {
        let installed = ["libgcc-s1", "gcc-12", "libllvm22"].map(str::to_owned).into();
        let wanted = wanted(&parse_simulation(SIMULATION), &installed);
        let names: Vec<_> = wanted.iter().filter_map(|one| one.split('=').next()).collect();
        assert_eq!(
            names,
            ["libz3-4", "libllvm22", "libstd-rust-web-dev", "rust-web-src", "rustc-web"]
        );
    }

    #[test]
    fn a_version_becomes_one_directory_name() {
        assert_eq!(directory_name("1.96.0+dfsg1-1~deb12u2"), "1.96.0-dfsg1-1~deb12u2");
        assert_eq!(directory_name("1:2/3"), "1-2-3");
    }
}

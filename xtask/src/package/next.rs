//! The next version, for tests of upgrades and of the way back.
//!
//! It is this workspace once more, of symbolic links, in which the version is a higher one and
//! the maps are of another ABI: another build of the same sources, which can take nothing but
//! the filter over from this one. The product knows nothing of it, so no release can be it by
//! mistake. What both have in common is compiled once (`build.build-dir`). Its packages hold the
//! documents of this version, to which the link of the agent's directory leads.

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};

use crate::command::workspace;

/// What differs, and how.
const CHANGES: [(&str, Change); 3] = [
    ("Cargo.toml", raise_version),
    ("Cargo.lock", raise_locked_versions),
    ("ebpf/src/abi.rs", raise_abi),
];
/// What is no source.
const LEFT_OUT: [&str; 2] = ["target", ".git"];

/// Makes of a text another one; none if it is not what it should be.
type Change = fn(&str) -> Option<String>;

/// Makes the workspace, or brings it up to date; returns where it lies.
pub(super) fn make() -> Result<PathBuf> {
    let copy = workspace().join("target").join("next");
    link(workspace(), &copy, Path::new(""))
        .with_context(|| format!("cannot make {}", copy.display()))?;
    Ok(copy)
}

/// Links what is in a directory, and writes what differs.
fn link(from: &Path, to: &Path, directory: &Path) -> Result<()> {
    // What was a link to the sources must not be written into.
    if to.join(directory).is_symlink() {
        fs::remove_file(to.join(directory))?;
    }
    fs::create_dir_all(to.join(directory))?;
    for entry in fs::read_dir(from.join(directory))? {
        let name = directory.join(entry?.file_name());
        if LEFT_OUT.iter().any(|out| Path::new(out) == name) {
            continue;
        }
        let change = CHANGES.iter().find(|(path, _)| Path::new(path) == name);
        if let Some((path, change)) = change {
            let text = fs::read_to_string(from.join(path))?;
            let changed = change(&text).ok_or_else(|| anyhow!("{path} is not as expected"))?;
            write_if_new(&to.join(path), &changed)?;
        } else if CHANGES.iter().any(|(path, _)| Path::new(path).starts_with(&name)) {
            link(from, to, &name)?;
        } else if !fs::read_link(to.join(&name)).is_ok_and(|known| known == from.join(&name)) {
            // It may lead to where the workspace was before.
            if to.join(&name).is_symlink() {
                fs::remove_file(to.join(&name))?;
            }
            symlink(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}

/// A file that has not changed keeps its time, so that nothing is built again for it.
fn write_if_new(path: &Path, text: &str) -> io::Result<()> {
    if path.is_symlink() {
        fs::remove_file(path)?;
    } else if fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    fs::write(path, text)
}

/// The next version but patches.
fn next_version() -> Option<String> {
    let minor = env!("CARGO_PKG_VERSION_MINOR").parse::<u32>().ok()?.checked_add(1)?;
    Some(format!("{}.{minor}.0", env!("CARGO_PKG_VERSION_MAJOR")))
}

fn raise_version(text: &str) -> Option<String> {
    let version = |version: &str| format!("\nversion = \"{version}\"\n");
    let (before, after) = text.split_once(&version(env!("CARGO_PKG_VERSION")))?;
    Some(format!("{before}{}{after}", version(&next_version()?)))
}

/// The workspace's own packages are those that come from nowhere else.
fn raise_locked_versions(text: &str) -> Option<String> {
    let packages = text.split("\n\n").map(|package| {
        let is_own = package.starts_with("[[package]]") && !package.contains("\nsource = ");
        if is_own { raise_version(package) } else { Some(package.to_owned()) }
    });
    Some(packages.collect::<Option<Vec<_>>>()?.join("\n\n"))
}

fn raise_abi(text: &str) -> Option<String> {
    const BEFORE: &str = "\npub const ABI_VERSION: u32 = ";
    let (before, rest) = text.split_once(BEFORE)?;
    let (version, after) = rest.split_once(';')?;
    let next = version.parse::<u32>().ok()?.checked_add(1)?;
    Some(format!("{before}{BEFORE}{next};{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_the_workspace_are_raised_and_no_others() {
        let own = env!("CARGO_PKG_VERSION");
        let package = |name: &str, version: &str, source: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n{source}")
        };
        let lock = |version: &str| {
            let foreign = package("other", own, "source = \"registry\"\n");
            [package("exogate", version, "dependencies = []\n"), foreign].join("\n")
        };
        let next = next_version().unwrap();
        assert_ne!(next, own);
        assert_eq!(raise_locked_versions(&lock(own)).unwrap(), lock(&next));
        assert_eq!(raise_version("[workspace.package]\nedition = \"2024\"\n"), None);
    }

    #[test]
    fn the_maps_of_the_next_version_are_others() {
        let line = |version: u32| format!("/// ABI.\npub const ABI_VERSION: u32 = {version};\n");
        assert_eq!(raise_abi(&line(9)), Some(line(10)));
    }

    #[test]
    fn what_differs_is_written_once_and_the_rest_is_linked() {
        let directory = env::temp_dir().join(format!("next-{}", std::process::id()));
        let (from, to) = (directory.join("from"), directory.join("to"));
        let read = |name: &str| fs::read_to_string(workspace().join(name)).unwrap();
        for (name, text) in [
            ("Cargo.toml", read("Cargo.toml")),
            ("Cargo.lock", read("Cargo.lock")),
            ("ebpf/src/abi.rs", read("ebpf/src/abi.rs")),
            ("ebpf/src/lib.rs", "mod abi;".to_owned()),
            ("agent/src/main.rs", "fn main() {}".to_owned()),
            ("target/debug/exogate", String::new()),
        ] {
            let path = from.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let made = |name: &str| fs::symlink_metadata(to.join(name));
        link(&from, &to, Path::new("")).unwrap();
        let written = made("ebpf/src/abi.rs").unwrap().modified().unwrap();
        link(&from, &to, Path::new("")).unwrap();
        let found = ["agent", "ebpf", "ebpf/src/lib.rs", "ebpf/src/abi.rs"]
            .map(|name| made(name).unwrap().is_symlink());
        let again = made("ebpf/src/abi.rs").unwrap().modified().unwrap();
        let (target, differs) =
            (made("target").is_ok(), fs::read_to_string(to.join("Cargo.lock")).unwrap());
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(found, [true, false, true, false]);
        assert_eq!(written, again);
        assert!(!target);
        assert_ne!(differs, read("Cargo.lock"));
    }
}

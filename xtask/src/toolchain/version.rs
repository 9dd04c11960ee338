//! Version numbers, as far as this project compares them.

use std::fmt;

/// Major, minor and patch number; whatever follows (`-nightly`, `+dfsg1`) is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// Major number.
    pub(crate) major: u32,
    /// Minor number.
    pub(crate) minor: u32,
    /// Patch number, 0 if not given.
    pub(crate) patch: u32,
}

impl Version {
    /// A version known at compile time.
    pub(crate) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads the version at the start of `text`: `22.1`, `22.1.8`, `1.97.0-nightly`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let numeric = text
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .next()
            .filter(|numeric| !numeric.is_empty())?;
        let mut parts = numeric.split('.').map(str::parse::<u32>);
        let major = parts.next()?.ok()?;
        let minor = parts.next()?.ok()?;
        let patch = parts.next().and_then(Result::ok).unwrap_or(0);
        Some(Self { major, minor, patch })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RustcVersion {
    /// The first line: release, commit and date.
    pub(crate) text: String,
    /// The release, without its channel.
    pub(crate) release: Version,
    /// The triple of the machine that it runs on.
    pub(crate) host: String,
    /// The LLVM that it holds.
    pub(crate) llvm: Version,
}

impl RustcVersion {
    /// Reads the output of `rustc -vV`.
    pub(crate) fn parse(output: &str) -> Option<Self> {
        let field = |name: &str| {
            output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        Some(Self {
            text: output.lines().next()?.to_owned(),
            release: Version::parse(field("release")?)?,
            host: field("host")?.to_owned(),
            llvm: Version::parse(field("LLVM version")?)?,
        })
    }

    /// Debian's name for the host's library directory: the triple without its vendor.
    pub(crate) fn multiarch(&self) -> String {
        let mut parts: Vec<&str> = self.host.split('-').collect();
        if parts.len() == 4 {
            parts.remove(1);
        }
        parts.join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "\
rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)
binary: rustc
commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96
commit-date: 2026-05-25
host: x86_64-unknown-linux-gnu
release: 1.96.0
LLVM version: 22.1.8
";

    #[test]
    fn version_drops_what_follows_the_numbers() {
        assert_eq!(Version::parse("1.97.0-nightly"), Some(Version::new(1, 97, 0)));
        assert_eq!(Version::parse("1.96.0+dfsg1-1~deb12u2"), Some(Version::new(1, 96, 0)));
        assert_eq!(Version::parse("22.1"), Some(Version::new(22, 1, 0)));
    }

    #[test]
    fn version_needs_two_numbers() {
        assert_eq!(Version::parse("22"), None);
        assert_eq!(Version::parse("nightly"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn versions_compare_as_numbers_not_as_text() {
        assert!(Version::new(1, 100, 0) > Version::new(1, 95, 0));
        assert!(Version::new(0, 9, 15) < Version::new(0, 10, 4));
    }

    #[test]
    fn rustc_version_is_read_from_its_verbose_output() {
        let version = RustcVersion::parse(DEBIAN).unwrap();
        assert_eq!(version.release, Version::new(1, 96, 0));
        assert_eq!(version.llvm, Version::new(22, 1, 8));
        assert_eq!(version.host, "x86_64-unknown-linux-gnu");
        assert_eq!(version.multiarch(), "x86_64-linux-gnu");
    }

    #[test]
    fn output_without_an_llvm_version_is_refused() {
        assert_eq!(RustcVersion::parse(&DEBIAN.replace("LLVM version", "GCC version")), None);
        assert_eq!(RustcVersion::parse(""), None);
    }
}

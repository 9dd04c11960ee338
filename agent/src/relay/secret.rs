//! Files with the values of which a sender has to know one.
//!
//! One value in a line, and nothing else: a comment would be a value that a
//! stranger could guess. Several values are there for the time in which one
//! replaces another. Nothing tells from the time of a comparison how much of a
//! value was right, or which one.
//!
//! A file that cannot be read, or holds no value, refuses the configuration:
//! without values nobody could pass, and that is never meant.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{Digest, SHA256, digest},
};

/// Largest file. No one needs so many values at once.
const LARGEST: u64 = 64 << 10;

/// Values of which a sender has to know one.
#[derive(Clone)]
pub struct Secrets(Vec<Digest>);

/// Why there are no secrets.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the secrets in {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is too large to be what it should be.
    #[error("{} is larger than {LARGEST} bytes; it must hold one secret in a line", .0.display())]
    TooLarge(PathBuf),
    /// It has no value.
    #[error("{} holds no secret; write one in a line, or remove the option", .0.display())]
    Empty(PathBuf),
}

impl Secrets {
    /// Reads a file, and warns if everybody could. It blocks.
    ///
    /// # Errors
    ///
    /// [`enum@Error`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        let fault = |error| Error::Read { path: path.to_owned(), error };
        let file = File::open(path).map_err(fault)?;
        let mode = file.metadata().map_err(fault)?.mode();
        if mode & 0o007 != 0 {
            tracing::warn!(
                path = %path.display(),
                "the secrets in this file are open to every user of this host; chmod o= it"
            );
        }
        let mut content = Vec::new();
        let read = file.take(LARGEST.saturating_add(1)).read_to_end(&mut content).map_err(fault)?;
        if u64::try_from(read).is_ok_and(|read| read > LARGEST) {
            return Err(Error::TooLarge(path.to_owned()));
        }
        let secrets = Self::parse(&content);
        if secrets.0.is_empty() { Err(Error::Empty(path.to_owned())) } else { Ok(secrets) }
    }

    fn parse(content: &[u8]) -> Self {
        let values = content.split(|byte| *byte == b'\n');
        let values = values.map(<[u8]>::trim_ascii).filter(|value| !value.is_empty());
        Self(values.map(|value| digest(&SHA256, value)).collect())
    }

    /// Whether this is one of the values. It takes the same time for all texts of
    /// one length.
    #[must_use]
    pub fn contain(&self, text: &[u8]) -> bool {
        // Digests have one length, so that of the value shows nowhere.
        let offered = digest(&SHA256, text);
        self.0.iter().fold(false, |found, value| {
            found | verify_slices_are_equal(value.as_ref(), offered.as_ref()).is_ok()
        })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// Secrets for a test.
#[cfg(test)]
impl From<&str> for Secrets {
    fn from(content: &str) -> Self {
        Self::parse(content.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(content: &[u8]) -> Result<Secrets, Error> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Secrets::load(file.path())
    }

    #[test]
    fn each_line_is_a_value() {
        let secrets = load(b"old value\r\n\n# new\n\xff").unwrap();
        for value in [&b"old value"[..], b"# new", b"\xff"] {
            assert!(secrets.contain(value), "{value:?}");
        }
        for value in [&b""[..], b"old", b"old value\r\n", b"OLD VALUE", b"new"] {
            assert!(!secrets.contain(value), "{value:?}");
        }
        assert_eq!(format!("{secrets:?}"), "3 secrets");
    }

    #[test]
    fn a_file_without_a_value_is_an_error() {
        assert!(matches!(load(b""), Err(Error::Empty(_))));
        assert!(matches!(load(b"\n \r\n"), Err(Error::Empty(_))));
        assert!(matches!(load(&[b'x'; 65_537]), Err(Error::TooLarge(_))));
        let missing = Secrets::load(Path::new("/nonexistent/secret")).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/secret"));
    }
}

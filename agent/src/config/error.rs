//! What is wrong with a configuration, and where.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::source::concealed;

/// Longest message, and longest line that is quoted.
const LONGEST: usize = 1000;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("the configuration {} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file says something that is not allowed.
    #[error("{}:{line}: {message}\n  {text}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The line itself, which names the key, without what may be a secret.
        text: String,
        /// What is wrong and what is allowed.
        message: String,
    },
}

impl Error {
    /// Whether the file is there, or may be, and this user may not read it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// A fault at a place in the text.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Range<usize>,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(at: Range<usize>, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }

    pub(super) fn of(error: &toml::de::Error) -> Self {
        Self::new(error.span().unwrap_or(0..0), error.message())
    }

    pub(super) fn within(self, path: &Path, text: &str) -> Error {
        let before = text.as_bytes().get(..self.at.start).unwrap_or_default();
        let index = before.iter().filter(|byte| **byte == b'\n').count();
        Error::Invalid {
            path: path.to_owned(),
            line: index.saturating_add(1),
            text: fit_for_a_log(text.lines().nth(index).unwrap_or_default().trim()),
            message: fit_for_a_log(&self.message),
        }
    }
}

/// The beginning of a text, without secrets and without what a terminal would obey.
fn fit_for_a_log(text: &str) -> String {
    concealed(text).chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

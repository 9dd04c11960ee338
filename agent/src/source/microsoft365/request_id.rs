//! The identifier that the service asks every installation for.
//!
//! It is a random UUID, kept in the state directory so that it stays the same:
//! the service counts requests by it. The one printed in Microsoft's
//! documentation is hard-coded in many programs and may be blocked, so it is
//! refused. Where the file cannot be kept, polling goes on with an identifier
//! for this run.

use std::{fmt, fs, io, io::Write as _, path::Path};

use uuid::Uuid;

use crate::state_file;

/// What documentation and samples print.
const DOCUMENTATION: [Uuid; 1] = [Uuid::from_u128(0xb10c_5ed1_bad1_445f_b386_b919_9463_39a7)];
const FILE: &str = "client-request-id";

/// A `ClientRequestId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new random one.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Accepts a random UUID that no documentation prints.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uuid = Uuid::try_parse(text.trim()).map_err(|error| format!("not a UUID: {error}"))?;
        if DOCUMENTATION.contains(&uuid) {
            return Err("the UUID that Microsoft's documentation prints".to_owned());
        }
        if uuid.get_version_num() != 4 {
            return Err("not a random (version 4) UUID".to_owned());
        }
        Ok(Self(uuid))
    }

    /// The identifier of this installation; a new one where there is none that
    /// can be used.
    #[must_use]
    pub fn of_installation(state_directory: &Path) -> Self {
        let path = state_directory.join(FILE);
        let problem = match fs::read_to_string(&path) {
            Ok(text) => match Self::parse(&text) {
                Ok(id) => return id,
                Err(problem) => problem,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => "missing".to_owned(),
            Err(error) => error.to_string(),
        };
        let id = Self::random();
        tracing::info!(path = %path.display(), problem, "writing a new client request id");
        if let Err(error) = fs::create_dir_all(state_directory).and_then(|()| write(&path, &id)) {
            tracing::warn!(path = %path.display(), %error,
                "the client request id cannot be kept and will change with the next start");
        }
        id
    }
}

fn write(path: &Path, id: &RequestId) -> io::Result<()> {
    state_file::create(path)?.write_all(format!("{id}\n").as_bytes())
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_keeps_its_identifier() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("not-there-yet");
        let id = RequestId::of_installation(&state);
        assert_eq!(RequestId::of_installation(&state), id);
    }

    #[test]
    fn identifiers_of_the_documentation_or_damaged_ones_are_replaced() {
        for text in [
            "b10c5ed1-bad1-445f-b386-b919946339a7",
            "B10C5ED1-BAD1-445F-B386-B919946339A7\n",
            "00000000-0000-0000-0000-000000000000",
            "",
            "b10c5ed1",
        ] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join(FILE), text).unwrap();
            let id = RequestId::of_installation(directory.path());
            assert_ne!(id.to_string(), text.trim().to_lowercase());
            assert_eq!(RequestId::of_installation(directory.path()), id, "{text:?}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_does_not_stop_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a-file");
        fs::write(&file, "").unwrap();
        let _ = RequestId::of_installation(&file);
    }
}

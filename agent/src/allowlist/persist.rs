//! What survives a restart.
//!
//! `state.json` holds, for every feed, revision and content together, and what
//! operators let pass or stopped for a while. It is written after they were applied, to a new file
//! that replaces the old one in one step, so that a crash at any moment leaves
//! either the old state or the new one: work is repeated, never skipped.
//!
//! A file that cannot be understood is put aside under another name and
//! reported; the start goes on from what is built in. Its content carries a
//! checksum, because a digit that flipped in an address still is an address.
//! One that a disk does not give back is damaged, too: a host without a filter would be worse
//! off than with the list that is built in. One that cannot be read for another reason may be
//! whole and hold an operator's orders: nothing starts without it, and it stays as it is.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use aws_lc_rs::digest;
use jiff::Timestamp;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{
    ModeOrder, Temporary,
    held::{Held, Known, Pending, Provenance},
    list::hexadecimal,
    vet::vet_content,
};
use crate::{
    source::{
        feed::{Content, FeedId, Revision},
        microsoft365::{EndpointSet, Instance, Version, excerpt},
    },
    state_file,
};

/// The form of `state.json`. Form 1 knew instances of the web service only; it is
/// read, and becomes form 2 when it is next written.
const SCHEMA: u32 = 2;
/// Room for as many prefixes as `gate.capacity` allows at most, at 256 bytes each; a prefix with
/// its origin takes about a hundred. What is larger is neither written nor read.
const MAX_BYTES: u64 = 1 << 30;

/// Why the state cannot be used, or not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The file is there, and the system does not let this process read it.
    #[error(
        "cannot read {}: {source}; it may hold orders of operators, so nothing starts without it: \
         move it away to start from the built-in list",
        .path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The file was written by a newer exogate.
    #[error("{} has the form {found}, newer than {SCHEMA}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
    },
    /// There is more to remember than a file may hold.
    #[error(
        "{} would have {size} bytes, more than the {most} that are read at a start; take large \
         lists out of the configuration",
        .path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large it would be.
        size: u64,
        /// How large it may be.
        most: u64,
    },
    /// The file is damaged.
    #[error("{} is damaged: {problem}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

#[derive(Deserialize)]
struct Envelope {
    schema: u32,
}

#[derive(Serialize, Deserialize)]
struct State {
    schema: u32,
    sha256: String,
    #[serde(flatten)]
    body: Body,
}

/// What the checksum covers.
#[derive(Serialize, Deserialize)]
struct Body {
    hold: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<ModeOrder>,
    temporary: Vec<Temporary>,
    feeds: Vec<Feed>,
}

#[derive(Serialize, Deserialize)]
struct Feed {
    feed: FeedId,
    revision: Option<Revision>,
    applied: Timestamp,
    definition: Option<String>,
    content: Arc<Content>,
    pending: Vec<Pending>,
}

/// Form 1.
#[derive(Serialize, Deserialize)]
struct FirstState {
    sha256: String,
    feeds: Vec<FirstFeed>,
}

#[derive(Serialize, Deserialize)]
struct FirstFeed {
    instance: Instance,
    version: Option<Version>,
    applied: Timestamp,
    sets: Vec<EndpointSet>,
    pending: Vec<Pending>,
}

impl From<FirstFeed> for Feed {
    fn from(first: FirstFeed) -> Self {
        Self {
            feed: FeedId::Instance(first.instance),
            revision: first.version.map(Revision::Version),
            applied: first.applied,
            definition: None,
            content: Arc::new(Content::Sets(first.sets)),
            pending: first.pending,
        }
    }
}

/// The directory that holds the state.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// Bytes of a file that is written and read.
    most: u64,
}

impl StateDirectory {
    /// The directory; it need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), most: MAX_BYTES }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// What was last applied; nothing if there is no state yet.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] if it cannot be read; it stays where it is. If what was read
    /// cannot be used, or the disk does not give it back, it has been put aside then, as far as that was possible, and nothing
    /// is in the way of a new one.
    pub fn load(&self) -> Result<Known, Error> {
        let path = self.file();
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(self.most).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Known::default()),
            // A disk that is asked again seldom says anything else.
            Err(error) if error.raw_os_error() == Some(Errno::EIO as i32) => {
                let problem = error.to_string();
                return Err(put_aside(&path, Error::Damaged { path: path.clone(), problem }));
            }
            Err(source) => {
                let source = state_file::advise(source, &self.path);
                return Err(Error::Unreadable { path, source });
            }
        }
        parse(&path, &bytes).map_err(|error| put_aside(&path, error))
    }

    /// Writes what was applied. What is built in is left out: a newer program
    /// may know better.
    ///
    /// # Errors
    ///
    /// If the system refuses, or there is more than [`StateDirectory::load`] would read; the
    /// state before is whole then.
    pub fn save(&self, known: &Known) -> Result<(), Error> {
        let feeds = known
            .held
            .iter()
            .filter_map(|(id, held)| {
                let (Provenance::Live { applied } | Provenance::LastKnownGood { applied }) =
                    held.provenance
                else {
                    return None;
                };
                Some(Feed {
                    feed: id.clone(),
                    revision: held.revision.clone(),
                    applied,
                    definition: held.definition.clone(),
                    content: Arc::clone(&held.content),
                    pending: held.pending.clone(),
                })
            })
            .collect();
        let body = Body {
            hold: known.hold,
            mode: known.mode.clone(),
            temporary: known.temporary.clone(),
            feeds,
        };
        let path = self.file();
        let failed = |action| {
            let path = path.clone();
            move |source| Error::Io { action, path, source }
        };
        let encode = |source: serde_json::Error| failed("cannot encode")(source.into());
        let sha256 = checksum(&body).map_err(encode)?;
        let state = State { schema: SCHEMA, sha256, body };
        let mut bytes = serde_json::to_vec(&state).map_err(encode)?;
        bytes.push(b'\n');
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if size > self.most {
            return Err(Error::TooLarge { path, size, most: self.most });
        }

        fs::create_dir_all(&self.path).map_err(failed("cannot make the directory of"))?;
        let new = path.with_extension("json.new");
        let mut file = state_file::create(&new).map_err(failed("cannot write anew"))?;
        file.write_all(&bytes).map_err(failed("cannot write anew"))?;
        file.sync_all().map_err(failed("cannot write anew"))?;
        fs::rename(&new, &path).map_err(failed("cannot replace"))?;
        // The new name is only certain when the directory is on disk.
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("cannot make durable"))
    }
}

/// Gives a file that is of no use another name, as far as that is possible.
fn put_aside(path: &Path, error: Error) -> Error {
    let aside = match error {
        Error::Newer { .. } => path.with_extension("json.newer"),
        _ => path.with_extension("json.damaged"),
    };
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!(path = %path.display(), %error, "the state cannot be put aside");
    }
    error
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Known, Error> {
    // It may quote what the file says, which may be anything.
    let damaged =
        |problem: String| Error::Damaged { path: path.to_owned(), problem: excerpt(&problem) };
    let unreadable = |error: serde_json::Error| damaged(error.to_string());
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(unreadable)?;
    let (body, matches) = match envelope.schema {
        1 => {
            let first: FirstState = serde_json::from_slice(bytes).map_err(unreadable)?;
            let matches = checksum(&first.feeds).ok() == Some(first.sha256);
            let feeds = first.feeds.into_iter().map(Feed::from).collect();
            (Body { hold: false, mode: None, temporary: Vec::new(), feeds }, matches)
        }
        SCHEMA => {
            let state: State = serde_json::from_slice(bytes).map_err(unreadable)?;
            let matches = checksum(&state.body).ok() == Some(state.sha256);
            (state.body, matches)
        }
        found => return Err(Error::Newer { path: path.to_owned(), found }),
    };
    // A fuzzer would never get behind a checksum.
    if !matches && !cfg!(fuzzing) {
        return Err(damaged("the checksum does not match".to_owned()));
    }
    let mut known =
        Known { hold: body.hold, mode: body.mode, temporary: body.temporary, ..Known::default() };
    for feed in body.feeds {
        // Whether private addresses are taken is for the configuration to say,
        // which is not known here.
        vet_content(&feed.content, true).map_err(|refusal| damaged(refusal.to_string()))?;
        let held = Held {
            revision: feed.revision,
            provenance: Provenance::LastKnownGood { applied: feed.applied },
            content: feed.content,
            pending: feed.pending,
            definition: feed.definition,
        };
        known.held.insert(feed.feed, held);
    }
    Ok(known)
}

fn checksum(content: &impl Serialize) -> Result<String, serde_json::Error> {
    let bytes = serde_json::to_vec(content)?;
    Ok(hexadecimal(digest::digest(&digest::SHA256, &bytes).as_ref()))
}

#[cfg(test)]
mod tests;

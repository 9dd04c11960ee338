//! What survives a restart.
//!
//! `state.json` holds, for every instance of the web service, version and
//! endpoint sets together. It is written after they were applied, to a new file
//! that replaces the old one in one step, so that a crash at any moment leaves
//! either the old state or the new one: work is repeated, never skipped.
//!
//! A file that cannot be understood is put aside under another name and
//! reported; the start goes on from what is built in. Its content carries a
//! checksum, because a digit that flipped in an address still is an address.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    held::{Held, Pending, Provenance},
    list::hexadecimal,
    vet::vet_sets,
};
use crate::source::microsoft365::{EndpointSet, Instance, Version};

/// The form of `state.json`.
const SCHEMA: u32 = 1;
/// Larger than the largest answer that is accepted, with room for pending
/// removals.
const MAX_BYTES: u64 = 64 << 20;

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
    /// The file was written by a newer exogate.
    #[error("{} has the form {found}, newer than {SCHEMA}", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
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
    feeds: Vec<Feed>,
}

#[derive(Serialize, Deserialize)]
struct Feed {
    instance: Instance,
    version: Option<Version>,
    applied: Timestamp,
    sets: Vec<EndpointSet>,
    pending: Vec<Pending>,
}

/// The directory that holds the state.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    path: PathBuf,
}

impl StateDirectory {
    /// The directory; it need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
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
    /// If the state cannot be used. It has been put aside then, as far as that
    /// was possible, and nothing is in the way of a new one.
    pub fn load(&self) -> Result<BTreeMap<Instance, Held>, Error> {
        let path = self.file();
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(source) => return Err(Error::Io { action: "cannot read", path, source }),
        }
        parse(&path, &bytes).inspect_err(|error| {
            let aside = match error {
                Error::Newer { .. } => path.with_extension("json.newer"),
                _ => path.with_extension("json.damaged"),
            };
            if let Err(error) = fs::rename(&path, &aside) {
                tracing::warn!(path = %path.display(), %error, "the state cannot be put aside");
            }
        })
    }

    /// Writes what was applied. What is built in is left out: a newer program
    /// may know better.
    ///
    /// # Errors
    ///
    /// If the system refuses; the state before is whole then.
    pub fn save(&self, held: &BTreeMap<Instance, Held>) -> Result<(), Error> {
        let feeds: Vec<_> = held
            .iter()
            .filter_map(|(instance, held)| {
                let (Provenance::Live { applied } | Provenance::LastKnownGood { applied }) =
                    held.provenance
                else {
                    return None;
                };
                Some(Feed {
                    instance: *instance,
                    version: held.version,
                    applied,
                    sets: held.sets.clone(),
                    pending: held.pending.clone(),
                })
            })
            .collect();
        let path = self.file();
        let failed = |action| {
            let path = path.clone();
            move |source| Error::Io { action, path, source }
        };
        let encode = |source: serde_json::Error| failed("cannot encode")(source.into());
        let sha256 = checksum(&feeds).map_err(encode)?;
        let state = State { schema: SCHEMA, sha256, feeds };
        let mut bytes = serde_json::to_vec_pretty(&state).map_err(encode)?;
        bytes.push(b'\n');

        fs::create_dir_all(&self.path).map_err(failed("cannot make the directory of"))?;
        let new = path.with_extension("json.new");
        let mut file = File::create(&new).map_err(failed("cannot write anew"))?;
        file.write_all(&bytes).map_err(failed("cannot write anew"))?;
        file.sync_all().map_err(failed("cannot write anew"))?;
        fs::rename(&new, &path).map_err(failed("cannot replace"))?;
        // The new name is only certain when the directory is on disk.
        File::open(&self.path)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("cannot make durable"))
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<BTreeMap<Instance, Held>, Error> {
    let damaged = |problem: String| Error::Damaged { path: path.to_owned(), problem };
    let envelope: Envelope =
        serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if envelope.schema > SCHEMA {
        return Err(Error::Newer { path: path.to_owned(), found: envelope.schema });
    }
    let state: State = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if checksum(&state.feeds).ok() != Some(state.sha256) {
        return Err(damaged("the checksum does not match".to_owned()));
    }
    let mut all = BTreeMap::new();
    for feed in state.feeds {
        vet_sets(&feed.sets).map_err(|refusal| damaged(refusal.to_string()))?;
        let held = Held {
            version: feed.version,
            provenance: Provenance::LastKnownGood { applied: feed.applied },
            sets: feed.sets,
            pending: feed.pending,
        };
        all.insert(feed.instance, held);
    }
    Ok(all)
}

fn checksum(feeds: &[Feed]) -> Result<String, serde_json::Error> {
    let bytes = serde_json::to_vec(feeds)?;
    Ok(hexadecimal(digest::digest(&digest::SHA256, &bytes).as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{allowlist::held, source::Origin};

    fn example() -> BTreeMap<Instance, Held> {
        let mut held = held::embedded(Instance::Worldwide);
        held.version = "2026112300".parse().ok();
        held.provenance =
            Provenance::LastKnownGood { applied: "2026-11-23T20:00:00Z".parse().unwrap() };
        held.pending.push(Pending {
            source: "exchange-online".to_owned(),
            entry: crate::source::Entry {
                prefix: "40.92.0.0/15".parse().unwrap(),
                origin: Origin::EndpointSet {
                    id: 9,
                    service_area: "Exchange".to_owned(),
                    urls: ["*.protection.outlook.com".to_owned()].into(),
                },
            },
            since: "2026-11-23T20:00:00Z".parse().unwrap(),
            polls: 1,
        });
        [(Instance::Worldwide, held)].into()
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDirectory::new(&root.path().join("made/when/needed"));
        assert_eq!(state.load().unwrap(), BTreeMap::new());
        state.save(&example()).unwrap();
        assert_eq!(state.load().unwrap(), example());
        state.save(&BTreeMap::new()).unwrap();
        assert_eq!(state.load().unwrap(), BTreeMap::new());
    }

    #[test]
    fn what_is_built_in_is_not_saved() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDirectory::new(root.path());
        state.save(&[(Instance::Worldwide, held::embedded(Instance::Worldwide))].into()).unwrap();
        assert_eq!(state.load().unwrap(), BTreeMap::new());
    }

    #[test]
    fn a_crash_while_writing_leaves_the_old_state() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDirectory::new(root.path());
        state.save(&example()).unwrap();
        fs::write(root.path().join("state.json.new"), "{\"schema\": 1, \"fe").unwrap();
        assert_eq!(state.load().unwrap(), example());
        state.save(&example()).unwrap();
        assert_eq!(state.load().unwrap(), example());
    }

    #[test]
    fn a_damaged_state_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDirectory::new(root.path());
        let path = root.path().join("state.json");
        state.save(&example()).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let (half, _) = whole.split_at(whole.len() / 2);
        for text in [
            "",
            "\0\0\0\0",
            half,
            "{}",
            "[]",
            &whole.replacen("40.96.0.0/13", "40.97.0.0/16", 1),
            &whole.replacen("2026112300", "2026112301", 1),
        ] {
            fs::write(&path, text).unwrap();
            assert!(matches!(state.load(), Err(Error::Damaged { .. })), "{text:.40}");
            assert!(!path.exists());
            assert_eq!(fs::read_to_string(path.with_extension("json.damaged")).unwrap(), text);
            assert_eq!(state.load().unwrap(), BTreeMap::new());
        }
    }

    #[test]
    fn the_state_of_a_newer_program_is_kept_for_it() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDirectory::new(root.path());
        let path = root.path().join("state.json");
        fs::write(&path, "{\"schema\": 2, \"other\": true}").unwrap();
        assert!(matches!(state.load(), Err(Error::Newer { found: 2, .. })));
        assert!(path.with_extension("json.newer").exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_with_its_path() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let state = StateDirectory::new(&file);
        let error = state.save(&example()).unwrap_err().to_string();
        assert!(error.contains("file/state.json"), "{error}");
        assert!(state.load().is_err());
    }
}

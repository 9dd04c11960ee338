//! What happened to the list: one line of JSON for every version that was applied
//! or refused and for everything that operators did.
//!
//! `history.jsonl` in the state directory is bounded, and so is what a record
//! tells of a great change. It is for people: nothing depends on it, and a
//! history that cannot be written is logged and counted, no more.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Change;
use crate::state_file;

/// Records that are kept. The file has at most twice as many.
const KEPT: usize = 1000;
/// Prefixes that a record names, of those that came and of those that went.
const NAMED: usize = 100;
/// Largest file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// What a feed said was put in force.
    Applied,
    /// What a feed said was refused.
    Refused,
    /// What an operator imported was put in force.
    Imported,
    /// Another configuration was put in force, and the list is another one.
    Configured,
    /// An operator stopped all updates.
    Held,
    /// An operator let updates go on.
    Resumed,
    /// An operator let something pass for a while.
    Allowed,
    /// An operator took that back.
    Removed,
    /// Its time was over.
    Expired,
    /// An operator had refused packets dropped.
    Enforced,
    /// An operator made that last.
    Confirmed,
    /// Nobody did so in time, and the mode before is back.
    Reverted,
    /// An operator stopped that.
    Monitored,
    /// What is another event to a newer program.
    #[serde(other)]
    Other,
}

/// One record. Field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
    /// To which feed, by instance or source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed: Option<String>,
    /// The version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The version that was applied or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// How many prefixes came.
    #[serde(default)]
    pub added: usize,
    /// How many went.
    #[serde(default)]
    pub removed: usize,
    /// The first of those that came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added_prefixes: Vec<Change>,
    /// The first of those that went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_prefixes: Vec<Change>,
    /// How many are about to go.
    #[serde(default)]
    pub pending: usize,
    /// Why it was refused, as in metrics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Hash of the list in force afterwards.
    pub list: String,
}

impl Record {
    pub(super) fn new(at: Timestamp, event: Event, list: &str) -> Self {
        Self {
            at,
            event,
            feed: None,
            from: None,
            to: None,
            added: 0,
            removed: 0,
            added_prefixes: Vec::new(),
            removed_prefixes: Vec::new(),
            pending: 0,
            reason: None,
            message: None,
            list: list.to_owned(),
        }
    }

    pub(super) fn changing(mut self, added: &[Change], removed: &[Change]) -> Self {
        let few = |changes: &[Change]| changes.iter().take(NAMED).cloned().collect();
        (self.added, self.removed) = (added.len(), removed.len());
        (self.added_prefixes, self.removed_prefixes) = (few(added), few(removed));
        self
    }
}

/// The history of a state directory.
#[derive(Clone, Debug)]
pub struct History {
    path: PathBuf,
}

impl History {
    /// The history in this directory; it need not exist.
    #[must_use]
    pub fn new(state_directory: &Path) -> Self {
        Self { path: state_directory.join("history.jsonl") }
    }

    /// The records, oldest first. Lines that cannot be read are left out: the
    /// last one may be torn.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn read(&self) -> io::Result<Vec<Record>> {
        let mut bytes = Vec::new();
        match File::open(&self.path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let mut records: Vec<_> = bytes
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        records.drain(..records.len().saturating_sub(KEPT));
        Ok(records)
    }

    /// Adds a record.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(super) fn add(&self, record: &Record) -> io::Result<()> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let line = serde_json::to_vec(record)?;
        let mut file = state_file::append(&self.path)?;
        // A new line before: what a crash tore must not spoil this record.
        file.write_all(&[b"\n", line.as_slice(), b"\n"].concat())?;
        self.trim()
    }

    /// Begins the file anew when it has grown to twice its size.
    fn trim(&self) -> io::Result<()> {
        let bytes = fs::read(&self.path)?;
        let is_record = |line: &&[u8]| !line.is_empty();
        if bytes.split(|byte| *byte == b'\n').filter(is_record).count() <= KEPT.saturating_mul(2) {
            return Ok(());
        }
        let mut lines = Vec::new();
        for record in self.read()? {
            lines.extend(serde_json::to_vec(&record)?);
            lines.push(b'\n');
        }
        let new = self.path.with_extension("jsonl.new");
        state_file::create(&new)?.write_all(&lines)?;
        fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn record(second: i64) -> Record {
        Record::new(Timestamp::from_second(second).unwrap(), Event::Applied, "hash")
    }

    #[test]
    fn records_are_kept_in_order_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::new(&directory.path().join("new"));
        assert_eq!(history.read().unwrap(), []);
        for second in 0..2 * 1000 + 1 {
            history.add(&record(second)).unwrap();
        }
        let records = history.read().unwrap();
        assert_eq!(records.len(), KEPT);
        assert_eq!(records.last(), Some(&record(2000)));
        let size = fs::read_to_string(&history.path).unwrap().lines().count();
        assert_eq!(size, KEPT, "the file begins anew");
    }

    #[test]
    fn a_torn_line_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::new(directory.path());
        history.add(&record(1)).unwrap();
        let mut file = OpenOptions::new().append(true).open(&history.path).unwrap();
        file.write_all(b"{\"at\":\"2026-").unwrap();
        history.add(&record(2)).unwrap();
        assert_eq!(history.read().unwrap(), [record(1), record(2)]);
    }

    #[test]
    fn a_great_change_is_told_in_few_lines() {
        let change = |n: u32| Change {
            source: "x".to_owned(),
            prefix: std::net::IpAddr::from(n.to_be_bytes()).into(),
        };
        let changes: Vec<_> = (0..100_000).map(change).collect();
        let record = record(1).changing(&changes, &[]);
        assert_eq!((record.added, record.added_prefixes.len()), (100_000, NAMED));
    }
}

//! Who changed what, when, and what came of it.
//!
//! Every order on the control socket is a line of JSON in `audit.jsonl` of the state directory,
//! and a line in the log. The file is bounded: a full one becomes `audit.jsonl.1`. What cannot be
//! recorded is done all the same, because a full disk must not keep an operator from acting; the
//! log says so, and a metric counts it. Contents of lists and notifications are left out.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Caller;
use crate::state_file;

/// A file that has become so large is put aside, in the place of the one before.
const LARGEST: u64 = 4 << 20;

/// What came of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was obeyed.
    Done,
    /// It was not, for a reason that the caller was told.
    Refused,
    /// The caller may not order anything.
    Denied,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Done, Self::Refused, Self::Denied];

    /// The name, as in metrics and records.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Denied => "denied",
        }
    }
}

/// An order. Field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub caller: Caller,
    /// What.
    pub order: Value,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was not obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The audit log. Cloning shares it.
#[derive(Clone)]
pub struct Audit {
    path: Arc<Mutex<PathBuf>>,
    orders: IntCounterVec,
    failures: IntCounter,
}

impl Audit {
    /// The log in a state directory, which need not exist.
    ///
    /// # Errors
    ///
    /// If a metric's name is taken.
    pub fn open(state_directory: &Path, registry: &Registry) -> prometheus::Result<Self> {
        let orders = IntCounterVec::new(
            Opts::new(
                "exogate_admin_orders_total",
                "Orders on the control socket by outcome: done, refused, denied.",
            ),
            &["outcome"],
        )?;
        for outcome in Outcome::ALL {
            orders.with_label_values(&[outcome.name()]);
        }
        let failures = IntCounter::new(
            "exogate_admin_audit_failures_total",
            "Orders that could not be written to the audit log.",
        )?;
        registry.register(Box::new(orders.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self { path: Arc::new(Mutex::new(file(state_directory))), orders, failures })
    }

    /// Records an order.
    pub(super) async fn record(&self, record: AuditRecord) {
        self.orders.with_label_values(&[record.outcome.name()]).inc();
        tracing::warn!(
            uid = record.caller.uid,
            user = record.caller.user,
            pid = record.caller.pid,
            order = %record.order,
            outcome = record.outcome.name(),
            message = record.message,
            "an order on the control socket"
        );
        let path = Arc::clone(&self.path);
        let written = tokio::task::spawn_blocking(move || {
            // One at a time.
            let path = path.lock().unwrap_or_else(PoisonError::into_inner);
            append(&path, &record)
        });
        if let Err(error) = written.await.map_err(io::Error::other).flatten() {
            self.failures.inc();
            tracing::error!(%error, "the audit log cannot be written");
        }
    }
}

fn file(state_directory: &Path) -> PathBuf {
    state_directory.join("audit.jsonl")
}

fn append(path: &Path, record: &AuditRecord) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if fs::symlink_metadata(path).is_ok_and(|file| file.len() >= LARGEST) {
        fs::rename(path, path.with_extension("jsonl.1"))?;
    }
    let line = serde_json::to_vec(record)?;
    let mut file = state_file::append(path)?;
    // A new line before: what a crash tore must not spoil this record.
    file.write_all(&[b"\n", line.as_slice(), b"\n"].concat())?;
    file.sync_data()
}

/// The records in a state directory, oldest first. Lines that cannot be read are left out: the
/// last one may be torn.
///
/// # Errors
///
/// If the system refuses.
pub fn records(state_directory: &Path) -> io::Result<Vec<AuditRecord>> {
    let path = file(state_directory);
    let mut bytes = Vec::new();
    for path in [path.with_extension("jsonl.1"), path] {
        match File::open(&path).and_then(|file| file.take(2 * LARGEST).read_to_end(&mut bytes)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// An order without the content of what is imported.
pub(super) fn shown(order: &impl Serialize) -> Value {
    let mut shown = serde_json::to_value(order).unwrap_or_default();
    if let Some(content) = shown.get_mut("content") {
        let bytes = content.as_str().map_or(0, str::len);
        *content = json!({ "bytes": bytes });
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn record(uid: u32) -> AuditRecord {
        AuditRecord {
            at: "2026-11-23T20:00:00Z".parse().unwrap(),
            caller: Caller { uid, user: None, pid: Some(7) },
            order: json!({ "order": "hold" }),
            outcome: Outcome::Done,
            message: None,
        }
    }

    #[test]
    fn records_are_read_in_order_and_a_torn_one_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path());
        append(&path, &record(1)).unwrap();
        let mut torn = OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"at\":\"2026").unwrap();
        append(&path, &record(2)).unwrap();
        assert_eq!(records(directory.path()).unwrap(), [record(1), record(2)]);
    }

    #[test]
    fn the_log_is_bounded_and_its_latest_records_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(directory.path());
        for uid in 1..=3 {
            append(&path, &record(uid)).unwrap();
            let mut full = OpenOptions::new().append(true).open(&path).unwrap();
            full.write_all(&vec![b'\n'; usize::try_from(LARGEST).unwrap()]).unwrap();
        }
        assert_eq!(records(directory.path()).unwrap(), [record(2), record(3)]);
    }

    #[test]
    fn a_link_leads_to_no_file_of_somebody_else() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (file(directory.path()), directory.path().join("other"));
        fs::write(&other, "as it was").unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(append(&path, &record(1)).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "as it was");
    }
}

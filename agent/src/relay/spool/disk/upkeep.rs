//! Keeps the database's files from growing without need.
//!
//! What is committed is in the write-ahead log first. From time to time, when
//! everybody has been answered, it is carried over into the database, and what the
//! file does not use is given back to the disk. If that fails, everything goes on in
//! the log, and it is tried again a while later.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::database;

/// Beyond so many pages the log is carried into the database: 16 MiB.
const LOG_PAGES: i64 = (16 << 20) / database::PAGE;
/// How long after a failure that is not tried again.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(1);
/// Free bytes of the file beyond which it is made smaller, and by how many pages at
/// a time.
const FREE_BYTES: u64 = 64 << 20;
const VACUUM_PAGES: i64 = 1024;

/// Remembers whether the log could not be carried over.
#[derive(Default)]
pub(super) struct Upkeep {
    /// When it is tried again, after a failure.
    stuck: Option<Instant>,
}

impl Upkeep {
    /// Carries the log into the database when it is long, or when nobody comes, and
    /// gives back what the file does not need. By then all are answered.
    pub(super) fn carry_over(&mut self, connection: &Connection, directory: &Path, idle: bool) {
        let now = Instant::now();
        if self.stuck.is_some_and(|until| now < until) {
            return;
        }
        match carry_over(connection, if idle { 1 } else { LOG_PAGES }) {
            Ok(()) => self.stuck = None,
            // All of it is written again the next time, so not after each commit.
            Err(error) => {
                let before = self.stuck.replace(now.checked_add(CHECKPOINT_RETRY).unwrap_or(now));
                if before.is_none() {
                    tracing::warn!(
                        directory = %directory.display(), %error,
                        "the spool's log cannot be carried into its database; it grows until it can",
                    );
                }
            }
        }
    }
}

/// Does so if the log has so many pages.
fn carry_over(connection: &Connection, least: i64) -> Result<(), rusqlite::Error> {
    if log_pages(connection)? < least {
        return Ok(());
    }
    if free_bytes(connection)? > FREE_BYTES {
        let mut vacuum =
            connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
    }
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Bytes of the file that are not used.
pub(super) fn free_bytes(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let pages: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    Ok(u64::try_from(pages.saturating_mul(database::PAGE)).unwrap_or_default())
}

/// Pages of the log that are not in the database yet.
fn log_pages(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached("PRAGMA wal_checkpoint(NOOP)")?
        .query_one([], |row| Ok(row.get::<_, i64>(1)?.saturating_sub(row.get(2)?)))
}

//! Connections to the database, and its schema.
//!
//! The write-ahead log and `synchronous = FULL` make a commit durable by one sync. A log that an earlier process left is carried into the database
//! when it is opened, so that nothing later depends on how it ended.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::directory::Directory;

/// The form of the database. A newer one is refused; an older one will be carried
/// over here when there is one.
const SCHEMA: i64 = 1;

/// Bytes of a page. A record of 2 KB leaves little of it empty, and a commit of one
/// record does not write much more than that.
pub(super) const PAGE: i64 = 8192;

const TABLES: &str = "
    CREATE TABLE record (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        route TEXT NOT NULL,
        accepted INTEGER NOT NULL,
        size INTEGER NOT NULL,
        lanes BLOB NOT NULL,
        message BLOB NOT NULL
    ) STRICT;
    -- Holds all that is counted at the start.
    CREATE INDEX record_route ON record (route, accepted, size);

    CREATE TABLE dead (
        burial INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        route TEXT NOT NULL,
        accepted INTEGER NOT NULL,
        size INTEGER NOT NULL,
        buried INTEGER NOT NULL,
        death TEXT NOT NULL,
        lanes BLOB NOT NULL,
        message BLOB NOT NULL
    ) STRICT;
    CREATE INDEX dead_route ON dead (route, size);
    CREATE INDEX dead_buried ON dead (buried);

    -- Digests of once keys and facts.
    CREATE TABLE mark (
        digest BLOB PRIMARY KEY,
        since INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX mark_since ON mark (since);
";

/// Why a database cannot be opened.
pub(super) enum Fault {
    /// It is damaged.
    Damaged(String),
    /// Everything else.
    Other(String),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Other(error.to_string()),
        }
    }
}

/// Opens the database to write, and makes it if there is none.
pub(super) fn open_to_write(directory: &Directory) -> Result<Connection, Fault> {
    directory.prepare().map_err(|error| Fault::Other(error.to_string()))?;
    let mut connection = open(&directory.database(), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // They count for a new database only.
    connection.pragma_update(None, "page_size", PAGE)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Other(format!(
            "the file system allows no write-ahead log, only {mode:?}"
        )));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Done by the writer, when nobody waits for it.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // What is removed is overwritten where that costs no further page.
    connection.pragma_update(None, "secure_delete", "FAST")?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.set_prepared_statement_cache_capacity(64);

    let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match found {
        SCHEMA => {}
        0 => {
            let tables: i64 =
                connection.query_one("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables != 0 {
                return Err(Fault::Other(
                    "it is a database, but not a spool; move it away".to_owned(),
                ));
            }
            let transaction = connection.transaction()?;
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "user_version", SCHEMA)?;
            transaction.commit()?;
        }
        newer => {
            return Err(Fault::Other(format!(
                "it was written by a newer exogate (its schema is {newer}, this one knows \
                 {SCHEMA}); install that one again, or give this one another spool.directory"
            )));
        }
    }
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0))
        .map_err(Fault::from)?;
    Ok(connection)
}

/// Opens the database to read, beside the connection that writes.
pub(super) fn open_to_read(database: &Path) -> Result<Connection, rusqlite::Error> {
    open(database, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn open(path: &Path, mode: OpenFlags) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(
        path,
        // A connection is used by one thread at a time.
        mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE,
    )?;
    // Nobody but a curious operator could hold a lock.
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    Ok(connection)
}

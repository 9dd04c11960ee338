//! What is asked of the database, in SQL.
//!
//! Times are kept as microseconds since 1970, numbers as SQLite's signed 64 bits.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    super::{DeadLetter, Death, Entry, Error, RecordId, Selection, seal::Sealer},
    counts::{Change, Size, Totals},
    queue::{Gap, WINDOW},
};

type Result<T, E = rusqlite::Error> = std::result::Result<T, E>;

/// Records that are moved or removed in one commit by one task, so that others
/// do not wait long.
pub(super) const CHUNK: u32 = 256;

/// A record that is to be stored.
#[derive(Debug)]
pub(super) struct NewRow {
    pub(super) id: RecordId,
    pub(super) route: Arc<str>,
    pub(super) accepted: Timestamp,
    pub(super) size: u64,
    pub(super) lanes: Vec<Arc<str>>,
    pub(super) sealed_lanes: Vec<u8>,
    pub(super) message: Vec<u8>,
    pub(super) once: Option<[u8; 32]>,
}

/// A record's place in the queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) id: RecordId,
    pub(super) sequence: u64,
}

/// A selection of dead letters that takes several commits.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    pub(super) selection: Selection,
    /// The last that was buried when it began: what is buried meanwhile is left.
    pub(super) up_to: Option<i64>,
    /// The last that was done.
    pub(super) after: Option<RecordId>,
    /// How many were done.
    pub(super) done: u64,
}

/// Stores a record.
pub(super) fn insert(connection: &Connection, new: &NewRow) -> Result<Change> {
    let sequence = connection
        .prepare_cached(
            "INSERT INTO record (id, route, accepted, size, lanes, message)
             VALUES (?, ?, ?, ?, ?, ?)",
        )?
        .insert(params![
            new.id.as_bytes(),
            new.route,
            new.accepted.as_microsecond(),
            signed(new.size),
            new.sealed_lanes,
            new.message,
        ])?;
    Ok(Change::Stored(Entry {
        id: new.id,
        sequence: unsigned(sequence),
        route: Arc::clone(&new.route),
        lanes: new.lanes.clone(),
        accepted: new.accepted,
        size: new.size,
    }))
}

/// Whether a digest is known.
pub(super) fn is_marked(connection: &Connection, digest: &[u8; 32]) -> Result<bool> {
    connection.prepare_cached("SELECT 1 FROM mark WHERE digest = ?")?.exists([digest])
}

/// Remembers a digest from now on.
pub(super) fn mark(connection: &Connection, digest: &[u8; 32], now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO mark (digest, since) VALUES (?, ?)
             ON CONFLICT DO UPDATE SET since = excluded.since",
        )?
        .execute(params![digest, now.as_microsecond()])
        .map(drop)
}

/// Removes a record that was delivered.
pub(super) fn remove(connection: &Connection, place: Place) -> Result<Option<Change>> {
    connection
        .prepare_cached(
            "DELETE FROM record WHERE sequence = ? AND id = ? RETURNING route, accepted, size",
        )?
        .query_one(params![signed(place.sequence), place.id.as_bytes()], size)
        .optional()
        .map(|size| size.map(Change::Delivered))
}

/// Makes a record a dead letter.
pub(super) fn bury(
    connection: &Connection,
    place: Place,
    death: &str,
    now: Timestamp,
) -> Result<Option<Change>> {
    connection
        .prepare_cached(
            "INSERT INTO dead (id, route, accepted, size, buried, death, lanes, message)
             SELECT id, route, accepted, size, ?3, ?4, lanes, message
             FROM record WHERE sequence = ?1 AND id = ?2",
        )?
        .execute(params![
            signed(place.sequence),
            place.id.as_bytes(),
            now.as_microsecond(),
            death
        ])?;
    Ok(match remove(connection, place)? {
        Some(Change::Delivered(size)) => Some(Change::Buried(size)),
        _ => None,
    })
}

/// Puts the next chunk of dead letters back into the queue, in the order of their
/// acceptance; whether there may be more.
pub(super) fn replay(
    connection: &Connection,
    sealer: &Sealer,
    sweep: &mut Sweep,
    changes: &mut Vec<Change>,
) -> Result<bool> {
    let chunk = chunk(connection, sweep)?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO record (id, route, accepted, size, lanes, message)
         SELECT id, route, accepted, size, lanes, message FROM dead WHERE burial = ?",
    )?;
    let mut read = connection.prepare_cached(
        "SELECT sequence, id, route, accepted, size, lanes FROM record WHERE sequence = ?",
    )?;
    let mut delete = connection.prepare_cached("DELETE FROM dead WHERE burial = ?")?;
    for (burial, _) in &chunk {
        let sequence = insert.insert([burial])?;
        changes.push(Change::Replayed(read.query_one([sequence], |row| entry(row, sealer))?));
        delete.execute([burial])?;
    }
    Ok(sweep.advance(&chunk))
}

/// Removes the next chunk of dead letters; whether there may be more.
pub(super) fn purge(
    connection: &Connection,
    sweep: &mut Sweep,
    changes: &mut Vec<Change>,
) -> Result<bool> {
    let chunk = chunk(connection, sweep)?;
    let mut delete = connection
        .prepare_cached("DELETE FROM dead WHERE burial = ? RETURNING route, accepted, size")?;
    for (burial, _) in &chunk {
        changes.push(Change::Purged(delete.query_one([burial], size)?));
    }
    Ok(sweep.advance(&chunk))
}

/// Removes a chunk of the dead letters and marks from before then; whether there
/// may be more.
pub(super) fn expire(
    connection: &Connection,
    before: Timestamp,
    changes: &mut Vec<Change>,
) -> Result<bool> {
    let before = before.as_microsecond();
    let old: Vec<i64> = connection
        .prepare_cached("SELECT burial FROM dead WHERE buried < ? ORDER BY buried LIMIT ?")?
        .query_map(params![before, CHUNK], |row| row.get(0))?
        .collect::<Result<_>>()?;
    let mut delete = connection
        .prepare_cached("DELETE FROM dead WHERE burial = ? RETURNING route, accepted, size")?;
    for burial in &old {
        changes.push(Change::Purged(delete.query_one([burial], size)?));
    }
    let marks = connection
        .prepare_cached(
            "DELETE FROM mark WHERE digest IN
             (SELECT digest FROM mark WHERE since < ? ORDER BY since LIMIT ?)",
        )?
        .execute(params![before, CHUNK])?;
    let full = usize::try_from(CHUNK).unwrap_or(usize::MAX);
    Ok(old.len() >= full || marks >= full)
}

/// The first entries of a gap in the window.
pub(super) fn page(connection: &Connection, sealer: &Sealer, gap: Gap) -> Result<Vec<Entry>> {
    let window = i64::try_from(WINDOW).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "SELECT sequence, id, route, accepted, size, lanes FROM record
             WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",
        )?
        .query_map(params![signed(gap.after), signed(gap.up_to), window], |row| entry(row, sealer))?
        .collect()
}

/// A message as it is stored, of a record that waits or of a dead letter.
pub(super) fn message(connection: &Connection, id: RecordId) -> Result<Option<Vec<u8>>> {
    connection
        .prepare_cached(
            "SELECT message FROM record WHERE id = ?1
             UNION ALL SELECT message FROM dead WHERE id = ?1",
        )?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()
}

/// Dead letters in the order of their acceptance.
pub(super) fn dead(
    connection: &Connection,
    sealer: &Sealer,
    selection: &Selection,
    after: Option<RecordId>,
    most: usize,
) -> Result<Vec<DeadLetter>> {
    let (low, high, route) = bounds(selection);
    connection
        .prepare_cached(
            "SELECT id, route, accepted, size, buried, death, lanes FROM dead
             WHERE id BETWEEN ? AND ? AND id > ? AND (?4 IS NULL OR route = ?4)
             ORDER BY id LIMIT ?",
        )?
        .query_map(
            params![low, high, after_id(after), route, i64::try_from(most).unwrap_or(i64::MAX)],
            |row| {
                let id = RecordId::from_bytes(row.get(0)?);
                let death: String = row.get(5)?;
                Ok(DeadLetter {
                    id,
                    route: row.get(1)?,
                    // Whose lanes cannot be read is listed all the same.
                    lanes: sealer.open_lanes(id, row.get(6)?).unwrap_or_default(),
                    accepted: time(row.get(2)?),
                    buried: time(row.get(4)?),
                    size: unsigned(row.get(3)?),
                    death: serde_json::from_str(&death).unwrap_or_else(|_| Death::Unreadable {
                        problem: "the reason of its burial is damaged".to_owned(),
                    }),
                })
            },
        )?
        .collect()
}

/// Counts everything, and finds the last sequence.
pub(super) fn count(connection: &Connection) -> Result<(Totals, u64)> {
    let mut totals = Totals::default();
    let mut statement = connection
        .prepare("SELECT route, count(*), sum(size), min(accepted) FROM record GROUP BY route")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let bytes = unsigned(row.get(2)?);
        totals.bytes = totals.bytes.saturating_add(bytes);
        let depth = totals.found(&row.get::<_, String>(0)?);
        depth.records = unsigned(row.get(1)?);
        depth.bytes = bytes;
        depth.oldest = Some(time(row.get(3)?));
    }
    let mut statement =
        connection.prepare("SELECT route, count(*), sum(size) FROM dead GROUP BY route")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        totals.bytes = totals.bytes.saturating_add(unsigned(row.get(2)?));
        totals.found(&row.get::<_, String>(0)?).dead = unsigned(row.get(1)?);
    }
    let last: Option<i64> =
        connection.query_one("SELECT max(sequence) FROM record", [], |row| row.get(0))?;
    Ok((totals, unsigned(last.unwrap_or_default())))
}

/// When the oldest record of a route was accepted.
pub(super) fn oldest(connection: &Connection, route: &str) -> Result<Option<Timestamp>> {
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT min(accepted) FROM record WHERE route = ?")?
        .query_one([route], |row| row.get(0))?;
    Ok(oldest.map(time))
}

impl Sweep {
    pub(super) const fn new(selection: Selection) -> Self {
        Self { selection, up_to: None, after: None, done: 0 }
    }

    fn advance(&mut self, chunk: &[(i64, RecordId)]) -> bool {
        let Some((_, last)) = chunk.last() else { return false };
        self.after = Some(*last);
        self.done = self.done.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        chunk.len() >= usize::try_from(CHUNK).unwrap_or(usize::MAX)
    }
}

/// The dead letters that are next in a sweep.
fn chunk(connection: &Connection, sweep: &mut Sweep) -> Result<Vec<(i64, RecordId)>> {
    let up_to = match sweep.up_to {
        Some(up_to) => up_to,
        None => connection
            .query_one("SELECT max(burial) FROM dead", [], |row| row.get::<_, Option<i64>>(0))?
            .unwrap_or_default(),
    };
    sweep.up_to = Some(up_to);
    let (low, high, route) = bounds(&sweep.selection);
    connection
        .prepare_cached(
            "SELECT burial, id FROM dead
             WHERE id BETWEEN ? AND ? AND id > ? AND (?4 IS NULL OR route = ?4) AND burial <= ?
             ORDER BY id LIMIT ?",
        )?
        .query_map(params![low, high, after_id(sweep.after), route, up_to, CHUNK], |row| {
            Ok((row.get(0)?, RecordId::from_bytes(row.get(1)?)))
        })?
        .collect()
}

/// The identities and the route that a selection asks for.
fn bounds(selection: &Selection) -> ([u8; 16], [u8; 16], Option<&str>) {
    match selection {
        Selection::All => ([0; 16], [0xff; 16], None),
        Selection::Route(route) => ([0; 16], [0xff; 16], Some(route)),
        Selection::One(id) => (*id.as_bytes(), *id.as_bytes(), None),
    }
}

/// Compares below every identity if there is none.
fn after_id(after: Option<RecordId>) -> Vec<u8> {
    after.map(|id| id.as_bytes().to_vec()).unwrap_or_default()
}

fn entry(row: &Row<'_>, sealer: &Sealer) -> Result<Entry> {
    let id = RecordId::from_bytes(row.get(1)?);
    Ok(Entry {
        id,
        sequence: unsigned(row.get(0)?),
        route: row.get(2)?,
        // Reading the message will tell that it cannot be read.
        lanes: sealer
            .open_lanes(id, row.get(5)?)
            .unwrap_or_default()
            .into_iter()
            .map(Into::into)
            .collect(),
        accepted: time(row.get(3)?),
        size: unsigned(row.get(4)?),
    })
}

fn size(row: &Row<'_>) -> Result<Size> {
    Ok(Size { route: row.get(0)?, accepted: time(row.get(1)?), bytes: unsigned(row.get(2)?) })
}

fn time(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// What the database answered, for people: never with what was to be stored.
pub(super) fn failure(tried: &str, error: &rusqlite::Error) -> Error {
    Error::Failed(format!("{tried}: {error}"))
}

//! The spool on this host's disk: an SQLite database.
//!
//! | module | owns |
//! |---|---|
//! | `directory` | who may read the files, who works with them, damaged ones |
//! | `database` | connections, the schema |
//! | `statements` | the SQL |
//! | `writer` | the one thread that writes, and what it does when that fails |
//! | `reader` | the one thread that reads |
//! | `queue` | the order in which records are handed over |
//! | `counts` | what waits |
//!
//! Messages are sealed before they are queued for the writer, and opened by the
//! reader. What is queued is bounded in bytes: who comes beyond that waits.
//!
//! # When things fail
//!
//! A database that is damaged is put aside under another name, loudly, and a new
//! one begun: accepting what comes matters more than what cannot be read. One of a
//! newer schema is refused. For a disk that fails while it is written see `writer`.

mod counts;
mod database;
mod directory;
mod fresh;
mod queue;
mod reader;
mod statements;
#[cfg(test)]
mod tests;
mod upkeep;
mod writer;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use self::{
    counts::Counts,
    database::Fault,
    directory::Directory,
    fresh::Fresh,
    queue::{Next, Queue},
    reader::Reader,
    statements::{NewRow, Place, Sweep},
    writer::{Task, Writer},
};
use super::{
    Appended, DeadLetter, Death, Depth, Entry, Error, Message, NewRecord, Pending, RecordId,
    Selection, Spool,
    metrics::Metrics,
    seal::{Kind, Sealer},
};
use crate::config;

/// What may be queued for the writer, in [`UNIT`]s: 64 MiB.
const ROOM: u32 = 64 << 10;
/// Bytes that are counted together.
const UNIT: usize = 1024;

/// Bytes of the disk that are left free. A log at its longest, and what it adds to
/// the database, fit in there, so that what is stored can be delivered and removed.
const RESERVE: u64 = 64 << 20;

/// A spool in a directory of this host.
pub struct DiskSpool {
    shared: Arc<Shared>,
    writer: mpsc::Sender<writer::Job>,
    reader: mpsc::Sender<reader::Job>,
}

/// What callers and threads share.
struct Shared {
    sealer: Sealer,
    counts: Counts,
    queue: Queue,
    fresh: Fresh,
    /// Room for what is queued for the writer.
    room: Arc<Semaphore>,
    metrics: Metrics,
    max_bytes: u64,
    keep_for: Duration,
    /// Bytes of the disk that are left free.
    reserve: u64,
}

impl Shared {
    fn full(&self) -> Error {
        Error::Full(format!(
            "{} of {} bytes are taken; raise spool.max_size, or purge dead letters",
            self.counts.bytes(),
            self.max_bytes
        ))
    }
}

impl DiskSpool {
    /// Opens the spool in a directory, and makes it if there is none. Takes a moment
    /// for each hundred thousand records, so rather not on an async thread.
    ///
    /// # Errors
    ///
    /// [`Error::Open`]: another process works there, it was written by a newer
    /// exogate, there is no key in the key file, or the system refuses.
    pub fn open(config: &config::Spool, directory: &Path, metrics: Metrics) -> Result<Self, Error> {
        Self::open_leaving(RESERVE, config, directory, metrics)
    }

    /// The same, with so many bytes of the disk left free.
    fn open_leaving(
        reserve: u64,
        config: &config::Spool,
        directory: &Path,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let sealer = Sealer::new(config.key_file.as_deref())?;
        let directory = Directory::claim(directory)?;
        let shared = Arc::new(Shared {
            sealer,
            counts: Counts::default(),
            queue: Queue::default(),
            fresh: Fresh::default(),
            room: Arc::new(Semaphore::new(usize::try_from(ROOM).unwrap_or(usize::MAX))),
            metrics,
            max_bytes: config.max_bytes,
            keep_for: config.keep_for,
            reserve,
        });
        let database = directory.database();
        let refused = |problem| Error::Open(format!("{}: {problem}", database.display()));
        let connection = match load(&directory, &shared) {
            Ok(connection) => connection,
            Err(Fault::Other(problem)) => return Err(refused(problem)),
            Err(Fault::Damaged(problem)) => {
                let aside = directory.put_aside().map_err(|error| {
                    refused(format!("it is damaged ({problem}) and cannot be put aside: {error}"))
                })?;
                tracing::error!(
                    problem, aside = %aside.display(),
                    "the spool is damaged. It was put aside and an empty one is begun: what waited \
                     in it is NOT delivered. `sqlite3 FILE .recover` may bring it back",
                );
                load(&directory, &shared).map_err(|fault| match fault {
                    Fault::Other(problem) | Fault::Damaged(problem) => refused(problem),
                })?
            }
        };
        let reading = database::open_to_read(&database).map_err(|e| refused(e.to_string()))?;
        let (writer, jobs) = mpsc::channel();
        let write = Writer::new(directory, connection, Arc::clone(&shared), jobs);
        let (reader, jobs) = mpsc::channel();
        let read =
            Reader { connection: Some(reading), database, shared: Arc::clone(&shared), jobs };
        let start = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
            thread.map_err(|error| Error::Open(format!("cannot start a thread: {error}")))
        };
        start("spool-write", Box::new(move || write.run()))?;
        start("spool-read", Box::new(move || read.run()))?;
        Ok(Self { shared, writer, reader })
    }

    /// Has the writer do something; how many records it changed.
    async fn write(&self, task: Task, room: Option<OwnedSemaphorePermit>) -> Result<u64, Error> {
        if self.shared.room.is_closed() {
            return Err(Error::Closed);
        }
        let (reply, answer) = oneshot::channel();
        let job = writer::Job { task, reply, _room: room };
        self.writer.send(job).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    /// Has the reader read something.
    async fn fetch<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> reader::Job,
    ) -> Result<T, Error> {
        if self.shared.room.is_closed() {
            return Err(Error::Closed);
        }
        let (reply, answer) = oneshot::channel();
        self.reader.send(job(reply)).map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }

    async fn store(&self, record: NewRecord) -> Result<Appended, Error> {
        let id = RecordId::new();
        let accepted = Timestamp::now();
        let sealer = &self.shared.sealer;
        let message = sealer.seal_message(id, &record.message)?;
        let units = message.len().div_ceil(UNIT);
        let units = u32::try_from(units).unwrap_or(ROOM).min(ROOM);
        let room = Arc::clone(&self.shared.room).acquire_many_owned(units);
        let room = room.await.map_err(|_| Error::Closed)?;
        let new = NewRow {
            id,
            route: record.message.route.as_str().into(),
            // As it is read back.
            accepted: Timestamp::from_microsecond(accepted.as_microsecond()).unwrap_or(accepted),
            size: u64::try_from(record.message.body.len()).unwrap_or(u64::MAX),
            sealed_lanes: sealer.seal_lanes(id, &record.lanes)?,
            lanes: record.lanes.into_iter().map(Into::into).collect(),
            message,
            once: record.once.map(|key| sealer.mark(Kind::Once, &key)),
        };
        let offer = self.shared.fresh.offer(id, record.message);
        Ok(match self.write(Task::Append(Box::new(new)), Some(room)).await? {
            0 => Appended::Duplicate,
            _ => {
                offer.stored();
                Appended::Stored(id)
            }
        })
    }
}

/// Opens the database and counts what waits in it.
fn load(directory: &Directory, shared: &Shared) -> Result<Connection, Fault> {
    let connection = database::open_to_write(directory)?;
    let (totals, newest) = statements::count(&connection)?;
    shared.counts.replace(totals);
    shared.queue.found(newest);
    Ok(connection)
}

impl Spool for DiskSpool {
    fn append(&self, record: NewRecord) -> Pending<'_, Appended> {
        let begun = Instant::now();
        Box::pin(async move {
            let result = self.store(record).await;
            self.shared.metrics.appended(begun, &result);
            result
        })
    }

    fn next(&self) -> Pending<'_, Entry> {
        Box::pin(async move {
            loop {
                match self.shared.queue.next()? {
                    Next::Entry(entry) => return Ok(entry),
                    Next::Load(gap) => {
                        self.reader.send(reader::Job::Page(gap)).map_err(|_| Error::Closed)?;
                    }
                    Next::Wait => {}
                }
                self.shared.queue.changed().await;
            }
        })
    }

    fn read(&self, id: RecordId) -> Pending<'_, Message> {
        Box::pin(async move {
            match self.shared.fresh.take(id) {
                Some(message) if !self.shared.room.is_closed() => Ok(message),
                _ => self.fetch(move |reply| reader::Job::Message(id, reply)).await,
            }
        })
    }

    fn delivered(&self, entry: &Entry) -> Pending<'_, ()> {
        let place = Place { id: entry.id, sequence: entry.sequence };
        // One that is gone already was delivered before, and that was not heard.
        Box::pin(async move {
            self.shared.fresh.take(place.id);
            self.write(Task::Delivered(place), None).await.map(drop)
        })
    }

    fn bury(&self, entry: &Entry, death: Death) -> Pending<'_, ()> {
        let place = Place { id: entry.id, sequence: entry.sequence };
        Box::pin(async move {
            self.shared.fresh.take(place.id);
            let death = serde_json::to_string(&death)
                .map_err(|error| Error::Failed(format!("a reason is no JSON: {error}")))?;
            self.write(Task::Bury { place, death }, None).await.map(drop)
        })
    }

    fn remember(&self, fact: String) -> Pending<'_, ()> {
        let digest = self.shared.sealer.mark(Kind::Fact, &fact);
        Box::pin(async move { self.write(Task::Remember(digest), None).await.map(drop) })
    }

    fn remembers(&self, fact: String) -> Pending<'_, bool> {
        let digest = self.shared.sealer.mark(Kind::Fact, &fact);
        Box::pin(self.fetch(move |reply| reader::Job::IsMarked(digest, reply)))
    }

    fn dead(
        &self,
        selection: Selection,
        after: Option<RecordId>,
        most: usize,
    ) -> Pending<'_, Vec<DeadLetter>> {
        Box::pin(self.fetch(move |reply| reader::Job::Dead(selection, after, most, reply)))
    }

    fn replay(&self, selection: Selection) -> Pending<'_, u64> {
        Box::pin(self.write(Task::Replay(Sweep::new(selection)), None))
    }

    fn purge(&self, selection: Selection) -> Pending<'_, u64> {
        Box::pin(self.write(Task::Purge(Sweep::new(selection)), None))
    }

    fn depth(&self) -> Vec<(String, Depth)> {
        self.shared.counts.depth()
    }

    fn taken(&self) -> u64 {
        self.shared.counts.bytes()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            // From here on everything is refused; who waits for room, too.
            self.shared.room.close();
            self.shared.queue.close();
            // A thread that has ended already answers by not answering.
            let (reply, answer) = oneshot::channel();
            if self.reader.send(reader::Job::Close(reply)).is_ok() {
                let _ = answer.await;
            }
            let (reply, answer) = oneshot::channel();
            let job = writer::Job { task: Task::Close, reply, _room: None };
            if self.writer.send(job).is_ok() {
                let _ = answer.await;
            }
            Ok(())
        })
    }
}

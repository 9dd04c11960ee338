//! The one thread that writes.
//!
//! It takes whatever has gathered, does it in one transaction, commits once, and
//! then answers everybody. While it waits for the disk the next batch gathers, so
//! that the more come, the more share a commit. Those who were just answered are
//! often back at once, so if fewer have gathered than before, it gives them an
//! eighth of the time that the last commit took.
//!
//! # When things fail
//!
//! - A statement fails: the transaction is taken back, and each task is tried alone,
//!   so that only those fail that have to.
//! - Little room is left on the disk: nothing more is accepted, so that there is
//!   enough to remove what is delivered.
//! - The commit fails because the disk is full all the same: nothing was stored. What adds
//!   nothing is tried alone, because it makes room; the rest is refused as full.
//! - The commit fails otherwise: all that shared it fail. The connection is kept:
//!   what comes next overwrites what was not made durable, and nothing that was not
//!   written relies on it. Were it opened anew, the log would be read from memory
//!   that the disk never took.
//! - A transaction cannot be taken back: the database is opened anew.
//!
//! After all of these the next batch is tried as if nothing had been, and the log
//! says when it fails and when it works again.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    super::Error,
    Shared,
    counts::Change,
    database::{self, Fault},
    directory::Directory,
    statements::{self, NewRow, Place, Sweep, failure},
    upkeep::{self, Upkeep},
};

/// The most tasks that share a commit.
const BATCH: usize = 512;
/// The most bytes that share a commit, but for the last task.
const BATCH_BYTES: usize = 8 << 20;
/// The longest wait for those who may come back.
const PAUSE: Duration = Duration::from_millis(1);
/// How often it is looked for what is too old.
const EXPIRY: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Debug)]
pub(super) enum Task {
    /// Store a record. 1, or 0 for a duplicate.
    Append(Box<NewRow>),
    /// Remove a record.
    Delivered(Place),
    /// Make a record a dead letter.
    Bury { place: Place, death: String },
    /// Remember a digest.
    Remember([u8; 32]),
    /// Put dead letters back.
    Replay(Sweep),
    /// Remove dead letters.
    Purge(Sweep),
    /// Remove dead letters and marks that are from before then.
    Expire(Timestamp),
    /// Finish.
    Close,
}

/// A task and who waits for it. The answer is how many records it changed.
pub(super) struct Job {
    pub(super) task: Task,
    pub(super) reply: oneshot::Sender<Result<u64, Error>>,
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// The thread's own.
pub(super) struct Writer {
    pub(super) directory: Directory,
    /// None if it could not be opened again.
    pub(super) connection: Option<Connection>,
    pub(super) shared: Arc<Shared>,
    pub(super) jobs: Receiver<Job>,
    /// Jobs that take several commits.
    long: VecDeque<Job>,
    next_expiry: Instant,
    /// Tasks in the last batch.
    last_size: usize,
    /// How long to wait for as many again.
    pause: Duration,
    /// Whether the last batch failed.
    failing: bool,
    upkeep: Upkeep,
}

/// Why a batch failed.
enum Failure {
    /// A task's statement did.
    Statement(rusqlite::Error),
    /// Beginning or committing did.
    Commit(rusqlite::Error),
    /// There is no connection.
    Open(Error),
}

/// What may be stored yet.
#[derive(Clone, Copy)]
struct Room {
    /// Bytes of bodies.
    bytes: u64,
    /// Whether the disk has too little left for any.
    scarce: bool,
}

/// A task's answer: how many, and whether there is more to do.
type Answer = Result<(u64, bool), Error>;

impl Writer {
    pub(super) fn new(
        directory: Directory,
        connection: Connection,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
    ) -> Self {
        Self {
            directory,
            connection: Some(connection),
            shared,
            jobs,
            long: VecDeque::new(),
            next_expiry: Instant::now(),
            last_size: 0,
            pause: Duration::ZERO,
            failing: false,
            upkeep: Upkeep::default(),
        }
    }

    /// Works until it is told to close, or nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        let closing = loop {
            match self.gather() {
                Ok(batch) => {
                    let idle = matches!(batch.as_slice(), [Job { task: Task::Expire(_), .. }]);
                    let begun = Instant::now();
                    self.last_size = batch.len();
                    self.commit(batch);
                    self.pause = (begun.elapsed().checked_div(8).unwrap_or_default()).min(PAUSE);
                    if let Some(connection) = &self.connection {
                        self.upkeep.carry_over(connection, self.directory.path(), idle);
                    }
                }
                Err(reply) => break reply,
            }
        };
        for job in mem::take(&mut self.long) {
            let _ = job.reply.send(Err(Error::Closed));
        }
        let Self { directory, connection, .. } = self;
        // The last one to close carries the log into the database.
        drop(connection);
        drop(directory);
        if let Some(reply) = closing {
            let _ = reply.send(Ok(0));
        }
    }

    /// Waits for a batch. If there will be none, who waits for that.
    fn gather(&mut self) -> Result<Vec<Job>, Option<oneshot::Sender<Result<u64, Error>>>> {
        if Instant::now() >= self.next_expiry {
            let expiry = self.expiry();
            self.long.push_back(expiry);
        }
        let mut batch: Vec<Job> = self.long.pop_front().into_iter().collect();
        let mut bytes = 0_usize;
        let mut until = None;
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let job = if batch.is_empty() {
                let wait = self.next_expiry.saturating_duration_since(Instant::now());
                match self.jobs.recv_timeout(wait) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => return Ok(vec![self.expiry()]),
                    Err(RecvTimeoutError::Disconnected) => return Err(None),
                }
            } else {
                match self.more(batch.len(), &mut until) {
                    Some(job) => job,
                    None => break,
                }
            };
            match &job.task {
                Task::Close if batch.is_empty() => return Err(Some(job.reply)),
                Task::Close => {
                    // What was begun is finished first.
                    self.commit(batch);
                    return Err(Some(job.reply));
                }
                task => bytes = bytes.saturating_add(task.bytes()),
            }
            batch.push(job);
        }
        Ok(batch)
    }

    /// The next job of a batch that has so many; waits until then for one, if it may
    /// come yet.
    fn more(&self, so_far: usize, until: &mut Option<Instant>) -> Option<Job> {
        let job = self.jobs.try_recv().ok();
        if job.is_some() || so_far >= self.last_size {
            return job;
        }
        let now = Instant::now();
        let until = until.get_or_insert_with(|| now.checked_add(self.pause).unwrap_or(now));
        self.jobs.recv_timeout(until.saturating_duration_since(now)).ok()
    }

    fn expiry(&mut self) -> Job {
        let now = Instant::now();
        self.next_expiry = now.checked_add(EXPIRY).unwrap_or(now);
        let before = Timestamp::now().checked_sub(self.shared.keep_for).unwrap_or(Timestamp::MIN);
        Job { task: Task::Expire(before), reply: oneshot::channel().0, _room: None }
    }

    /// Does a batch, and answers.
    fn commit(&mut self, mut batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        let failure = match self.attempt(&mut batch) {
            Ok((answers, changes)) => {
                self.succeeded(batch, answers, changes);
                return;
            }
            Err(failure) => failure,
        };
        self.take_back();
        match failure {
            Failure::Statement(_) if batch.len() > 1 => {
                batch.into_iter().for_each(|job| self.commit(vec![job]));
            }
            Failure::Commit(error) if is_full(&error) && batch.len() > 1 => {
                let (adding, others): (Vec<_>, Vec<_>) =
                    batch.into_iter().partition(|job| matches!(job.task, Task::Append(_)));
                others.into_iter().for_each(|job| self.commit(vec![job]));
                self.failed(adding, self.explain(&error));
            }
            Failure::Statement(error) | Failure::Commit(error) => {
                let error = self.explain(&error);
                self.failed(batch, error);
            }
            Failure::Open(error) => self.failed(batch, error),
        }
    }

    /// Does a batch in one transaction, or nothing of it.
    fn attempt(&mut self, batch: &mut [Job]) -> Result<(Vec<Answer>, Vec<Change>), Failure> {
        let sweeps: Vec<_> = batch.iter_mut().map(|job| job.task.sweep().cloned()).collect();
        let result = self.transact(batch);
        if result.is_err() {
            // They begin again where they were: what they had done is taken back.
            for (job, before) in batch.iter_mut().zip(sweeps) {
                if let (Some(sweep), Some(before)) = (job.task.sweep(), before) {
                    *sweep = before;
                }
            }
        }
        result
    }

    fn transact(&mut self, batch: &mut [Job]) -> Result<(Vec<Answer>, Vec<Change>), Failure> {
        if self.connection.is_none() {
            self.connection = Some(self.open_again().map_err(Failure::Open)?);
        }
        let Some(connection) = &self.connection else {
            return Err(Failure::Open(Error::Closed));
        };
        let mut changes = Vec::with_capacity(batch.len());
        let mut answers = Vec::with_capacity(batch.len());
        let now = Timestamp::now();
        let mut room = self.shared.max_bytes.saturating_sub(self.shared.counts.bytes());
        let free = self.directory.free();
        connection.execute_batch("BEGIN IMMEDIATE").map_err(Failure::Commit)?;
        // Where the file has pages to reuse it does not grow.
        let scarce = free < self.shared.reserve
            && free.saturating_add(upkeep::free_bytes(connection).map_err(Failure::Statement)?)
                < self.shared.reserve;
        for job in batch {
            if matches!(job.task, Task::Append(_)) && job.reply.is_closed() {
                // Who gave up waiting has answered that it was not accepted.
                answers.push(Ok((0, false)));
                continue;
            }
            let before = changes.len();
            let answer = self
                .perform(connection, &mut job.task, now, Room { bytes: room, scarce }, &mut changes)
                .map_err(Failure::Statement)?;
            for change in changes.iter().skip(before) {
                room = change.leaves(room);
            }
            answers.push(answer);
        }
        connection.execute_batch("COMMIT").map_err(Failure::Commit)?;
        Ok((answers, changes))
    }

    /// Does a task. What it must not do is an answer; what the database could not
    /// do is an error.
    fn perform(
        &self,
        connection: &Connection,
        task: &mut Task,
        now: Timestamp,
        room: Room,
        changes: &mut Vec<Change>,
    ) -> Result<Answer, rusqlite::Error> {
        let sealer = &self.shared.sealer;
        Ok(Ok(match task {
            Task::Append(new) => {
                if let Some(digest) = &new.once
                    && statements::is_marked(connection, digest)?
                {
                    return Ok(Ok((0, false)));
                }
                if room.scarce {
                    return Ok(Err(self.disk_full()));
                }
                if new.size > room.bytes {
                    return Ok(Err(self.shared.full()));
                }
                if let Some(digest) = &new.once {
                    statements::mark(connection, digest, now)?;
                }
                changes.push(statements::insert(connection, new)?);
                (1, false)
            }
            Task::Delivered(place) => {
                let change = statements::remove(connection, *place)?;
                let number = u64::from(change.is_some());
                changes.extend(change);
                (number, false)
            }
            Task::Bury { place, death } => {
                let Some(change) = statements::bury(connection, *place, death, now)? else {
                    return Ok(Err(Error::Unknown(place.id)));
                };
                changes.push(change);
                (1, false)
            }
            Task::Remember(digest) => {
                statements::mark(connection, digest, now)?;
                (0, false)
            }
            Task::Replay(sweep) => {
                let more = statements::replay(connection, sealer, sweep, changes)?;
                (sweep.done, more)
            }
            Task::Purge(sweep) => {
                let more = statements::purge(connection, sweep, changes)?;
                (sweep.done, more)
            }
            Task::Expire(before) => (0, statements::expire(connection, *before, changes)?),
            Task::Close => (0, false),
        }))
    }

    /// The batch is durable: counts it, hands it on, and answers.
    fn succeeded(&mut self, batch: Vec<Job>, answers: Vec<Answer>, changes: Vec<Change>) {
        if mem::take(&mut self.failing) {
            tracing::info!(directory = %self.directory.path().display(), "the spool works again");
        }
        self.shared.metrics.committed();
        for route in self.shared.counts.apply(&changes) {
            let Some(connection) = &self.connection else { break };
            match statements::oldest(connection, &route) {
                Ok(oldest) => self.shared.counts.set_oldest(&route, oldest),
                Err(error) => tracing::warn!(%error, "the oldest record could not be looked up"),
            }
        }
        let entries = changes.into_iter().filter_map(|change| match change {
            Change::Stored(entry) | Change::Replayed(entry) => Some(entry),
            _ => None,
        });
        self.shared.queue.committed(entries.collect());
        for (job, answer) in batch.into_iter().zip(answers) {
            match answer {
                Ok((_, true)) => self.long.push_back(job),
                Ok((number, false)) => drop(job.reply.send(Ok(number))),
                Err(error) => drop(job.reply.send(Err(error))),
            }
        }
    }

    fn failed(&mut self, batch: Vec<Job>, error: Error) {
        if batch.is_empty() {
            return;
        }
        if !mem::replace(&mut self.failing, true) {
            tracing::error!(
                directory = %self.directory.path().display(), %error,
                "the spool cannot write; nothing is accepted that is not stored",
            );
        }
        for job in batch {
            let _ = job.reply.send(Err(error.clone()));
        }
    }

    fn explain(&self, error: &rusqlite::Error) -> Error {
        if is_full(error) {
            return self.disk_full();
        }
        let directory = self.directory.path().display();
        failure(&format!("cannot write to the database in {directory}"), error)
    }

    fn disk_full(&self) -> Error {
        Error::Full(format!(
            "the disk of {} is full: {} bytes are free, and {} are kept free to deliver what is \
             stored; make room there, or put spool.directory elsewhere",
            self.directory.path().display(),
            self.directory.free(),
            self.shared.reserve
        ))
    }

    /// Ends a transaction that failed.
    fn take_back(&mut self) {
        let Some(connection) = &self.connection else { return };
        if connection.is_autocommit() {
            return;
        }
        if let Err(error) = connection.execute_batch("ROLLBACK")
            && !connection.is_autocommit()
        {
            tracing::error!(%error, "a transaction cannot be taken back; opening the database anew");
            self.connection = None;
        }
    }

    fn open_again(&self) -> Result<Connection, Error> {
        // A damaged one is put aside at the next start, not under those who read it.
        let connection = database::open_to_write(&self.directory).map_err(|fault| match fault {
            Fault::Damaged(problem) | Fault::Other(problem) => Error::Failed(format!(
                "cannot open {} again: {problem}",
                self.directory.database().display()
            )),
        })?;
        let (totals, newest) = statements::count(&connection)
            .map_err(|error| failure("cannot count what waits", &error))?;
        self.shared.counts.replace(totals);
        self.shared.queue.found(newest);
        Ok(connection)
    }
}

impl Task {
    /// How far a task has come that is done in parts.
    const fn sweep(&mut self) -> Option<&mut Sweep> {
        match self {
            Self::Replay(sweep) | Self::Purge(sweep) => Some(sweep),
            _ => None,
        }
    }

    /// About how many bytes it writes.
    fn bytes(&self) -> usize {
        match self {
            Self::Append(new) => new.message.len(),
            // As much as a chunk may be.
            Self::Replay(_) | Self::Purge(_) => BATCH_BYTES / 2,
            _ => 0,
        }
    }
}

impl Change {
    /// The room that is left after it.
    fn leaves(&self, room: u64) -> u64 {
        match self {
            Self::Stored(entry) => room.saturating_sub(entry.size),
            Self::Delivered(size) | Self::Purged(size) => room.saturating_add(size.bytes),
            Self::Buried(_) | Self::Replayed(_) => room,
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

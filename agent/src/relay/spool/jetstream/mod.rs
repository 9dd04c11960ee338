//! A spool on a NATS JetStream cluster, which several edge hosts share.
//!
//! What one host accepted survives the loss of that host: the records are on the
//! servers, and another host delivers them. See `servers` for the streams and
//! buckets.
//!
//! # Delivery
//!
//! One host at a time delivers, see `lease`. It reads the stream of what waits
//! from its beginning, see `follow`, and deletes what is delivered. So what is in
//! the stream is what is not delivered, in the order of acceptance, for whoever
//! reads it next. A work queue with acknowledgements would keep a second account of
//! that in a consumer: after the loss of a host it repeats records when their time
//! to be acknowledged has run out, each for itself and behind what came later, so
//! that the order within a lane would be lost; and it needs to be told again and
//! again, for each record of a lane that stands still for a day, that the record is
//! not forgotten. Deleting also overwrites the record on the servers' disks, if it
//! is not encrypted.
//!
//! A host that lost its turn hands over nothing more. What it has handed over
//! before may be delivered by another host now, and is [`Error::Unknown`] to
//! [`Spool::read`] then.
//!
//! # What an acknowledged record survives
//!
//! A quorum of the stream's servers has written it to files. It survives the end of
//! any processes, and the loss of a minority of the servers with their disks. It
//! does **not** survive a power cut that takes a majority of them at once: servers
//! write to the page cache, and sync files minutes apart, two by default. Version
//! 2.9, which Debian 12 has, knows no option for that; it refuses a configuration
//! with `sync_interval`. Later versions have `sync_interval: always`
//! (<https://docs.nats.io/reference/config/jetstream/sync_interval>, and
//! <https://github.com/nats-io/nats-server/issues/7564> for what happens without).
//! Servers have to stand in places that do not lose power together. A server that
//! lost power alone may have lost what it promised to remember; if it matters, it
//! is safer to let it join with an empty directory
//! (<https://github.com/nats-io/nats-server/issues/7567>).
//!
//! Nor does it survive for certain that a server **stops for seconds and goes on**, as
//! a virtual machine does that is moved or saved. Then the copies of the stream on the
//! three servers may differ for good, though each calls itself current: 76, 66 and 76
//! messages, or as many with other subjects. Seen with 2.9.10 on a busy machine in 17 of 59
//! trials in which the stream's leader stopped too, and in 1 of 54 in which only followers
//! did, whether or not appends demand an empty subject; never with servers that were
//! killed. About ten acknowledged records were missing then, or another stood in the place
//! of one. The servers' authors have mended such faults up to version 2.12 at least
//! (<https://github.com/nats-io/nats-server/pull/6944>,
//! <https://github.com/nats-io/nats-server/pull/8057>). Do not pause the machines of the
//! cluster.
//!
//! # What the servers need
//!
//! JetStream on as many servers as there are `replicas`; a `max_payload` of some
//! KiB more than the largest body of a route (1 MiB if nothing is said); room for
//! `max_size` and an eighth of it on each. Nothing newer than version 2.9 is used.
//!
//! # When things fail
//!
//! - No connection, or no leader: appends fail within 2 s, or twice that with a
//!   `once` key; each other request within 5 s. Whether a record was stored is not
//!   known then. The connection comes back by itself.
//! - A stream is full: [`Error::Full`]. Nothing is dropped, but marks.
//! - The host is killed: another one delivers after `lease`'s term.
//! - A record cannot be read: it is handed over, and can be buried.
//! - Two records with one `once` key: see `marks`.

mod append;
mod dead;
mod follow;
#[cfg(fuzzing)]
pub mod fuzzing;
mod lease;
mod marks;
mod metrics;
mod queue;
mod record;
mod room;
mod servers;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::metrics::Metrics;
use self::{
    follow::follow,
    lease::{Lease, Turn},
    queue::Queue,
    room::Room,
    servers::{Servers, failed, is_missing},
};
use super::{
    Appended, DeadLetter, Death, Depth, Entry, Error, Message, NewRecord, Pending, RecordId,
    Selection, Spool, seal::Sealer,
};
use crate::config;

/// How often the servers are asked how much room is taken.
const REFRESH: Duration = Duration::from_secs(3);
/// The longest that opening waits to know what waits.
const READ: Duration = Duration::from_secs(15);

/// A spool on NATS JetStream.
pub struct JetstreamSpool {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Servers,
    sealer: Sealer,
    queue: Queue,
    lease: Lease,
    room: Room,
    metrics: Metrics,
    max_bytes: u64,
    /// Nothing new is begun.
    closing: CancellationToken,
    /// What was begun.
    calls: TaskTracker,
    /// What runs beside the calls has to end.
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl JetstreamSpool {
    /// Connects to the servers, makes or checks the streams, and finds out whose
    /// turn it is to deliver.
    ///
    /// # Errors
    ///
    /// [`Error::Open`]: no server can be reached, a stream cannot be made or has
    /// another shape, a file of the configuration cannot be used.
    pub async fn open(
        spool: &config::Spool,
        jetstream: &config::Jetstream,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let sealer = Sealer::new(spool.key_file.as_deref())?;
        let servers = Servers::open(spool, jetstream, &metrics).await?;
        let inner = Arc::new(Inner {
            lease: Lease::new(servers.lease.clone()),
            servers,
            sealer,
            queue: Queue::default(),
            room: Room::default(),
            metrics,
            max_bytes: spool.max_bytes,
            closing: CancellationToken::new(),
            calls: TaskTracker::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        inner.room.refresh(&inner.servers).await?;
        let read = CancellationToken::new();
        inner.tasks.spawn(take_turns(Arc::clone(&inner), read.clone()));
        inner.tasks.spawn(refresh(Arc::clone(&inner)));
        let opened = Self { inner };
        let mut turn = opened.inner.lease.watch();
        let known = async {
            tokio::select! {
                () = read.cancelled() => {}
                _ = turn.wait_for(|turn| *turn == Turn::Others) => {}
            }
        };
        if timeout(READ, known).await.is_err() {
            tracing::warn!("the spool is open, but its servers do not tell yet what waits in it");
        }
        Ok(opened)
    }
}

impl Drop for JetstreamSpool {
    fn drop(&mut self) {
        self.inner.closing.cancel();
        self.inner.stop.cancel();
    }
}

/// Delivers when it is this host's turn, until it has to stop.
async fn take_turns(inner: Arc<Inner>, read: CancellationToken) {
    let turns = async {
        loop {
            let revision = inner.lease.acquire().await;
            tracing::info!("this host delivers what waits in the spool");
            inner.metrics.turns.inc();
            inner.queue.begin();
            let complete = || {
                inner.queue.is_complete();
                read.cancel();
            };
            let waiting = || inner.queue.depth().unwrap_or_default();
            tokio::select! {
                () = inner.lease.hold(revision, waiting) => {}
                () = follow(&inner, complete) => {}
            }
            inner.queue.end();
            tracing::warn!("another host delivers what waits in the spool");
        }
    };
    tokio::select! {
        () = turns => {}
        () = inner.stop.cancelled() => {
            inner.queue.end();
            inner.lease.release().await;
        }
    }
}

/// Keeps what is known of the servers' room up to date, until it has to stop.
async fn refresh(inner: Arc<Inner>) {
    let refreshing = async {
        loop {
            sleep(REFRESH).await;
            if let Err(error) = inner.room.refresh(&inner.servers).await {
                tracing::debug!(%error, "the room in the spool is not known");
            }
        }
    };
    tokio::select! {
        () = refreshing => {}
        () = inner.stop.cancelled() => {}
    }
}

impl Inner {
    /// A call that closing waits for, and that is refused after it.
    fn call<'a, T: Send + 'a>(
        &'a self,
        call: impl Future<Output = Result<T, Error>> + Send + 'a,
    ) -> Pending<'a, T> {
        let token = self.calls.token();
        Box::pin(async move {
            let _token = token;
            if self.closing.is_cancelled() { Err(Error::Closed) } else { call.await }
        })
    }

    async fn next(&self) -> Result<Entry, Error> {
        let mut turn = self.lease.watch();
        loop {
            turn.mark_unchanged();
            if self.closing.is_cancelled() {
                return Err(Error::Closed);
            }
            if self.lease.is_mine()
                && let Some(entry) = self.queue.take()
            {
                return Ok(entry);
            }
            tokio::select! {
                () = self.queue.arrived.notified() => {}
                _ = turn.changed() => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    async fn read(&self, id: RecordId) -> Result<Message, Error> {
        let unreadable = |error| failed("a record cannot be read", error);
        // By its place, if that is known, is the quickest. The leader answers: what
        // it does not have is not there.
        let place = self.queue.place(id);
        if let Some(sequence) = place {
            match self.servers.waiting.get_raw_message(sequence).await {
                Ok(found) => return self.sealer.open_message(id, found.payload.into()),
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        let subject = format!("{}.waiting.{id}", self.servers.prefix);
        let found = match self.servers.waiting.get_last_raw_message_by_subject(&subject).await {
            Ok(found) => Some(found),
            // One that waited here is not looked for among those that another host gave up:
            // its lane has gone on.
            Err(error) if is_missing(&error) && place.is_some() => None,
            Err(error) if is_missing(&error) => self.dead_message(id).await?,
            Err(error) => return Err(unreadable(error)),
        };
        if let Some(found) = found {
            return self.sealer.open_message(id, found.payload.into());
        }
        if let Some(place) = place {
            self.is_gone(place).await?;
            // Another host delivered it, or it died of age.
            self.queue.remove(place);
        }
        Err(Error::Unknown(id))
    }

    /// Whether what is missing at a place is missing for good: a new leader may not have
    /// caught up with what the old one had told.
    async fn is_gone(&self, place: u64) -> Result<(), Error> {
        let info = self.servers.waiting.get_info().await;
        let info = info.map_err(|error| failed("a record cannot be read", error))?;
        if info.state.last_sequence < place {
            return Err(failed("a record cannot be read", "the leader is behind"));
        }
        Ok(())
    }

    fn depth(&self) -> Vec<(String, Depth)> {
        let mut depth = self.queue.depth().unwrap_or_else(|| self.lease.depth());
        for (route, dead) in self.room.letters() {
            depth.entry(route).or_default().dead = dead;
        }
        depth.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect()
    }

    async fn close(&self) {
        self.closing.cancel();
        self.calls.close();
        self.calls.wait().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.servers.close().await;
    }
}

impl Spool for JetstreamSpool {
    fn append(&self, record: NewRecord) -> Pending<'_, Appended> {
        let begun = std::time::Instant::now();
        Box::pin(async move {
            let appended = self.inner.call(self.inner.append(record)).await;
            self.inner.metrics.store.appended(begun, &appended);
            appended
        })
    }

    fn next(&self) -> Pending<'_, Entry> {
        // It ends by itself when the spool is closed.
        Box::pin(self.inner.next())
    }

    fn read(&self, id: RecordId) -> Pending<'_, Message> {
        self.inner.call(self.inner.read(id))
    }

    fn delivered(&self, entry: &Entry) -> Pending<'_, ()> {
        let entry = entry.clone();
        self.inner.call(async move { self.inner.take_out(&entry).await })
    }

    fn bury(&self, entry: &Entry, death: Death) -> Pending<'_, ()> {
        let entry = entry.clone();
        self.inner.call(async move { self.inner.bury_record(&entry, death).await })
    }

    fn remember(&self, fact: String) -> Pending<'_, ()> {
        self.inner.call(async move { self.inner.remember_fact(&fact).await })
    }

    fn remembers(&self, fact: String) -> Pending<'_, bool> {
        self.inner.call(async move { self.inner.remembers_fact(&fact).await })
    }

    fn dead(
        &self,
        selection: Selection,
        after: Option<RecordId>,
        most: usize,
    ) -> Pending<'_, Vec<DeadLetter>> {
        self.inner.call(async move { self.inner.list(&selection, after, most).await })
    }

    fn replay(&self, selection: Selection) -> Pending<'_, u64> {
        self.inner.call(async move { self.inner.replay_all(&selection).await })
    }

    fn purge(&self, selection: Selection) -> Pending<'_, u64> {
        self.inner.call(async move { self.inner.purge_all(&selection).await })
    }

    fn depth(&self) -> Vec<(String, Depth)> {
        self.inner.depth()
    }

    fn taken(&self) -> u64 {
        self.inner.room.taken()
    }

    fn delivers(&self) -> bool {
        self.inner.lease.is_mine()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            self.inner.close().await;
            Ok(())
        })
    }
}

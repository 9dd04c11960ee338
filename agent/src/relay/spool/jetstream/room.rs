//! How much room is taken, and how many dead letters there are by route.
//!
//! The servers know; they are asked every few seconds. In between this host adds
//! what it does itself, so that a limit is met at once by whoever reaches it. Each
//! host sees what others append only with the next answer: together they may exceed
//! `max_size` by what they take in that time, while the stream of what waits cannot
//! exceed it at all.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_nats::jetstream::stream::State;
use futures_util::TryStreamExt;

use super::{
    super::Error,
    servers::{Servers, failed},
};

#[derive(Default)]
pub(super) struct Room {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    waiting: u64,
    dead: u64,
    letters: BTreeMap<String, u64>,
    /// What the stream of dead letters looked like when `letters` was read from it.
    counted: Option<(u64, u64)>,
    /// Counts the changes of dead letters by this host: what was counted before one is out
    /// of date.
    changes: u64,
}

impl Room {
    /// Bytes of all that is stored.
    pub(super) fn taken(&self) -> u64 {
        let counts = self.lock();
        counts.waiting.saturating_add(counts.dead)
    }

    /// Dead letters by route.
    pub(super) fn letters(&self) -> BTreeMap<String, u64> {
        self.lock().letters.clone()
    }

    /// A record of this size was appended.
    pub(super) fn appended(&self, size: u64) {
        let mut counts = self.lock();
        counts.waiting = counts.waiting.saturating_add(size);
    }

    /// A record of this size waits no longer.
    pub(super) fn removed(&self, size: u64) {
        let mut counts = self.lock();
        counts.waiting = counts.waiting.saturating_sub(size);
    }

    /// There is one more dead letter of this route.
    pub(super) fn buried(&self, route: &str, size: u64) {
        let mut counts = self.lock();
        counts.dead = counts.dead.saturating_add(size);
        let letters = counts.letters.entry(route.to_owned()).or_default();
        *letters = letters.saturating_add(1);
        counts.changed();
    }

    /// Asks the servers. What this host does meanwhile is added to what they say, which
    /// may count it twice until the next answer, and no longer.
    pub(super) async fn refresh(&self, servers: &Servers) -> Result<(), Error> {
        let (before, counted, bytes) = {
            let counts = self.lock();
            (counts.changes, counts.counted, [counts.waiting, counts.dead])
        };
        let waiting = state(&servers.waiting).await?;
        let dead = state(&servers.dead).await?;
        let look = (dead.messages, dead.last_sequence);
        let letters = match counted {
            Some(counted) if counted == look => None,
            _ => Some(count(servers).await?),
        };
        let mut counts = self.lock();
        let [waiting_before, dead_before] = bytes;
        counts.waiting = moved(waiting.bytes, waiting_before, counts.waiting);
        counts.dead = moved(dead.bytes, dead_before, counts.dead);
        if counts.changes == before
            && let Some(letters) = letters
        {
            (counts.letters, counts.counted) = (letters, Some(look));
        }
        Ok(())
    }

    /// This host has removed dead letters.
    pub(super) async fn recount(&self, servers: &Servers) -> Result<(), Error> {
        {
            let mut counts = self.lock();
            counts.counted = None;
            counts.changed();
        }
        self.refresh(servers).await
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }
}

/// What the servers said, changed as the count here was changed meanwhile.
const fn moved(said: u64, before: u64, now: u64) -> u64 {
    said.saturating_add(now.saturating_sub(before)).saturating_sub(before.saturating_sub(now))
}

async fn state(stream: &async_nats::jetstream::stream::Stream) -> Result<State, Error> {
    let info = stream.get_info().await;
    Ok(info.map_err(|error| failed("the state of a stream", error))?.state)
}

async fn count(servers: &Servers) -> Result<BTreeMap<String, u64>, Error> {
    let every = format!("{}.dead.>", servers.prefix);
    let subjects = servers.dead.info_with_subjects(every).await;
    let mut subjects = subjects.map_err(|error| failed("the list of dead letters", error))?;
    let mut letters = BTreeMap::new();
    while let Some((subject, _)) =
        subjects.try_next().await.map_err(|error| failed("the list of dead letters", error))?
    {
        if let Some(route) = subject.split('.').nth(2) {
            let count: &mut u64 = letters.entry(route.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }
    Ok(letters)
}

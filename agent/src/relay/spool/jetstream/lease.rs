//! Whose turn it is to deliver.
//!
//! One entry in a bucket names the host that delivers. It writes the entry again
//! and again, each time on condition that it is the last who wrote it. The others
//! look at it; when it has not changed for [`TERM`] by their own clock, they write
//! it themselves, on the same condition. So one of them gets it.
//!
//! A host stops delivering [`MARGIN`] before [`TERM`] has passed since it *began*
//! its last successful writing. Those who wait begin to count when they *see* it,
//! which is later. So two hosts deliver at once only if a delivery that was begun
//! in time lasts longer than the margin. No two clocks have to agree, which they
//! would if the bucket let entries die of age; only their pace must.
//!
//! A host that cannot reach the servers stops in time. When it reaches them again
//! and nobody else has written, it goes on where it was.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::super::Depth;

/// How long an entry holds that is not written again.
const TERM: Duration = Duration::from_secs(6);
/// How much earlier its holder stops.
const MARGIN: Duration = Duration::from_secs(1);
/// How often the holder writes.
const RENEW: Duration = Duration::from_millis(1500);
/// How often the others look, and the pause after a failure.
const LOOK: Duration = Duration::from_millis(400);
/// The longest that one request may take.
const REQUEST: Duration = Duration::from_secs(2);

const KEY: &str = "delivery";

/// What the entry says.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    /// One run of one host.
    holder: Uuid,
    /// What waits, for the metrics of those who do not deliver.
    waiting: BTreeMap<String, Depth>,
}

/// What is known of whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing yet.
    Unknown,
    /// Another host's.
    Others,
    /// This host's, until then.
    Mine(Instant),
}

/// This host's side of it.
pub(super) struct Lease {
    bucket: Store,
    me: Uuid,
    turn: watch::Sender<Turn>,
    others: Mutex<BTreeMap<String, Depth>>,
}

impl Lease {
    pub(super) fn new(bucket: Store) -> Self {
        Self {
            bucket,
            me: Uuid::new_v4(),
            turn: watch::Sender::new(Turn::Unknown),
            others: Mutex::default(),
        }
    }

    /// Whether it is this host's turn.
    pub(super) fn is_mine(&self) -> bool {
        matches!(*self.turn.borrow(), Turn::Mine(until) if Instant::now() < until)
    }

    /// Tells of changes.
    pub(super) fn watch(&self) -> watch::Receiver<Turn> {
        self.turn.subscribe()
    }

    /// What waits, as the host says whose turn it is.
    pub(super) fn depth(&self) -> BTreeMap<String, Depth> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it is this host's turn; what to give to [`Self::hold`].
    pub(super) async fn acquire(&self) -> u64 {
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            match self.look().await {
                Ok((revision, holder)) => {
                    let since = match seen {
                        Some((before, since)) if before == revision => since,
                        _ => Instant::now(),
                    };
                    seen = Some((revision, since));
                    let free = match &holder {
                        None => true,
                        Some(holder) => holder.holder == self.me || since.elapsed() >= TERM,
                    };
                    let waiting = holder.map(|holder| holder.waiting).unwrap_or_default();
                    if free && let Ok(revision) = self.write(revision, &waiting).await {
                        return revision;
                    }
                    *self.others.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
                    if !free {
                        self.turn.send_replace(Turn::Others);
                    }
                }
                Err(problem) => tracing::debug!(problem, "cannot see who delivers"),
            }
            sleep(LOOK).await;
        }
    }

    /// Keeps the turn; returns when another host has taken it.
    pub(super) async fn hold(
        &self,
        mut revision: u64,
        waiting: impl Fn() -> BTreeMap<String, Depth>,
    ) {
        let mut pause = RENEW;
        loop {
            sleep(pause).await;
            match self.write(revision, &waiting()).await {
                Ok(renewed) => (revision, pause) = (renewed, RENEW),
                Err(Refused::Changed) => match self.look().await {
                    // The answer to an earlier writing was lost.
                    Ok((mine, Some(holder))) if holder.holder == self.me => revision = mine,
                    Ok(_) => {
                        self.turn.send_replace(Turn::Others);
                        return;
                    }
                    Err(_) => pause = LOOK,
                },
                Err(Refused::Failed) => pause = LOOK,
            }
        }
    }

    /// Gives the turn up, so that nobody has to wait for its end.
    pub(super) async fn release(&self) {
        self.turn.send_replace(Turn::Others);
        if let Ok((revision, Some(holder))) = self.look().await
            && holder.holder == self.me
        {
            let delete = self.bucket.delete_expect_revision(KEY, Some(revision));
            if timeout(REQUEST, delete).await.is_err() {
                tracing::debug!("the turn to deliver could not be given up, and will run out");
            }
        }
    }

    /// Revision and content of the entry.
    async fn look(&self) -> Result<(u64, Option<Holder>), String> {
        let entry = timeout(REQUEST, self.bucket.entry(KEY)).await;
        let entry =
            entry.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        Ok(entry.map_or((0, None), |entry| {
            let put = entry.operation == Operation::Put;
            // What cannot be read is somebody's nevertheless, until it runs out.
            let unknown = || Holder { holder: Uuid::nil(), waiting: BTreeMap::new() };
            let holder = || serde_json::from_slice(&entry.value).unwrap_or_else(|_| unknown());
            (entry.revision, put.then(holder))
        }))
    }

    async fn write(
        &self,
        revision: u64,
        waiting: &BTreeMap<String, Depth>,
    ) -> Result<u64, Refused> {
        let begin = Instant::now();
        let holder = Holder { holder: self.me, waiting: waiting.clone() };
        let value = serde_json::to_vec(&holder).map_err(|_| Refused::Failed)?;
        match timeout(REQUEST, self.bucket.update(KEY, value.into(), revision)).await {
            Ok(Ok(written)) => {
                let until = begin.checked_add(TERM.saturating_sub(MARGIN)).unwrap_or(begin);
                self.turn.send_replace(Turn::Mine(until));
                Ok(written)
            }
            Ok(Err(error)) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                Err(Refused::Changed)
            }
            Ok(Err(_)) | Err(_) => Err(Refused::Failed),
        }
    }
}

/// Why the entry was not written.
#[derive(Debug)]
enum Refused {
    /// Somebody has written it since.
    Changed,
    /// Or it was, and nobody said so.
    Failed,
}

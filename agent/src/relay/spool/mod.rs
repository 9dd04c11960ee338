//! Where accepted notifications wait, durably, until they are delivered.
//!
//! A [`Spool`] promises:
//!
//! - **Durable**: when [`Spool::append`] is `Ok`, the record survives the end of
//!   the process, of the host's power, and for a replicated spool of the host.
//! - **Whole**: what is taken out is what was put in, or it is not taken out.
//! - **In order**: [`Spool::next`] hands records over as they were accepted.
//! - **At least once**: a record comes back after every start until it is
//!   [`delivered`](Spool::delivered) or [buried](Spool::bury). Its
//!   [`RecordId`] never changes, so whoever receives it twice can tell.
//! - **Bounded**: beyond its limits it refuses with [`Error::Full`]; nothing
//!   that was accepted is thrown away to make room, but by age.
//!
//! The payloads hold personal data: they are readable for their owner alone,
//! live no longer than they are told, and never show in a log.

#[cfg(test)]
pub(crate) mod conformance;
pub mod disk;
pub mod jetstream;
pub mod metrics;
mod seal;

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The identity of a record: stable from its acceptance to its end, unique among
/// all hosts, ordered by time (UUID version 7). It is the idempotency key that
/// the upstream sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RecordId(Uuid);

impl RecordId {
    /// A new identity.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The 16 bytes of it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// From the 16 bytes of it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl Default for RecordId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RecordId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Uuid::from_str(text).map(Self).map_err(|_| format!("{text:?} is not the id of a record"))
    }
}

/// A notification as it was received and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The name of the route that accepted it.
    pub route: String,
    /// Path and query, normalised, as they were checked.
    pub target: String,
    /// Header fields that go on to the upstream: names in lower case, values as
    /// they were.
    pub headers: Vec<(String, String)>,
    /// Who sent it.
    pub source: Option<IpAddr>,
    /// The untouched body. Not part of the JSON of this type: stores keep it
    /// beside that.
    #[serde(skip)]
    pub body: Bytes,
}

/// What is to be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The notification.
    pub message: Message,
    /// What it must stay in order with: one entry for each subscription that it
    /// carries. Nothing waits for a record without lanes.
    pub lanes: Vec<String>,
    /// A record with the same key is taken once only, within the time that the
    /// spool keeps such keys.
    pub once: Option<String>,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable.
    Stored(RecordId),
    /// A record with the same `once` key was taken before.
    Duplicate,
}

/// A record that waits for delivery. Without the message, which is read when its
/// turn has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub id: RecordId,
    /// Its place in the order of acceptance.
    pub sequence: u64,
    /// The route that accepted it.
    pub route: Arc<str>,
    /// What it must stay in order with.
    pub lanes: Vec<Arc<str>>,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// Bytes of its body.
    pub size: u64,
}

/// Why a record was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Death {
    /// The upstream refused it for good.
    Refused {
        /// The status that it answered.
        status: u16,
    },
    /// It was tried for as long as is configured.
    Expired {
        /// What went wrong last, in a sentence.
        last: String,
    },
    /// The configuration has no such route any more.
    NoRoute,
    /// It cannot be read back: damaged, or encrypted with another key.
    Unreadable {
        /// What is wrong, in a sentence.
        problem: String,
    },
}

impl Death {
    /// The name in metrics, CLI and documentation.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Expired { .. } => "expired",
            Self::NoRoute => "no_route",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// A record that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its identity.
    pub id: RecordId,
    /// The route that accepted it.
    pub route: String,
    /// What it was in order with.
    pub lanes: Vec<String>,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it was given up.
    pub buried: Timestamp,
    /// Bytes of its body.
    pub size: u64,
    /// Why.
    #[serde(flatten)]
    pub death: Death,
}

/// Which dead letters are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Every one.
    All,
    /// Those of a route.
    Route(String),
    /// This one.
    One(RecordId),
}

/// What waits of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depth {
    /// Records that wait for delivery.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<Timestamp>,
    /// Dead letters.
    pub dead: u64,
}

/// Why a spool did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no room. Nothing was stored.
    #[error("the spool is full: {0}")]
    Full(String),
    /// It could not be opened.
    #[error("the spool cannot be opened: {0}")]
    Open(String),
    /// The store failed: what was asked for may have happened, or not.
    #[error("the spool failed: {0}")]
    Failed(String),
    /// A record cannot be read back.
    #[error("record {id} cannot be read: {problem}")]
    Unreadable {
        /// The record.
        id: RecordId,
        /// What is wrong.
        problem: String,
    },
    /// There is no such record.
    #[error("there is no record {0}")]
    Unknown(RecordId),
    /// The spool is closed.
    #[error("the spool is closed")]
    Closed,
}

impl Error {
    /// The name as a metric label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Full(_) => "full",
            Self::Open(_) => "open",
            Self::Failed(_) => "failed",
            Self::Unreadable { .. } => "unreadable",
            Self::Unknown(_) => "unknown",
            Self::Closed => "closed",
        }
    }
}

/// A future of a spool's.
pub type Pending<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// A durable queue of notifications. See the module for what it promises.
pub trait Spool: Send + Sync + 'static {
    /// Makes a record durable.
    fn append(&self, record: NewRecord) -> Pending<'_, Appended>;

    /// The next record to deliver, in the order of acceptance: first those that
    /// an earlier run left, then those that come. Waits for one. Each is handed
    /// over once in the life of this value. Safe to cancel. One caller.
    fn next(&self) -> Pending<'_, Entry>;

    /// The message of a record that waits or is a dead letter.
    fn read(&self, id: RecordId) -> Pending<'_, Message>;

    /// A record has been delivered: it is removed for good.
    fn delivered(&self, entry: &Entry) -> Pending<'_, ()>;

    /// A record is given up: it becomes a dead letter.
    fn bury(&self, entry: &Entry, death: Death) -> Pending<'_, ()>;

    /// Remembers a fact for as long as `once` keys are kept, durably.
    fn remember(&self, fact: String) -> Pending<'_, ()>;

    /// Whether a fact is remembered.
    fn remembers(&self, fact: String) -> Pending<'_, bool>;

    /// Dead letters, the oldest first, those after `after`, at most `most`.
    fn dead(
        &self,
        selection: Selection,
        after: Option<RecordId>,
        most: usize,
    ) -> Pending<'_, Vec<DeadLetter>>;

    /// Puts dead letters back to the end of the queue, under their old identity;
    /// how many.
    fn replay(&self, selection: Selection) -> Pending<'_, u64>;

    /// Removes dead letters for good; how many.
    fn purge(&self, selection: Selection) -> Pending<'_, u64>;

    /// What waits, by route. Cheap: read at every scrape.
    fn depth(&self) -> Vec<(String, Depth)>;

    /// Bytes of all bodies that take room, dead letters included. Cheap, too.
    fn taken(&self) -> u64;

    /// Whether records of this spool should be delivered by this host now. A
    /// spool that several hosts share lets one of them deliver at a time. While it
    /// is false, what was handed over before has to wait; what another host delivers
    /// meanwhile is [`Error::Unknown`] to [`Spool::read`].
    fn delivers(&self) -> bool {
        true
    }

    /// Finishes what was begun and refuses everything else.
    fn close(&self) -> Pending<'_, ()>;
}

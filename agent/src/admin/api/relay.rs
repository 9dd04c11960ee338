//! What the control socket answers about the relay.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use crate::relay::{
    spool::{DeadLetter, RecordId, Selection},
    upstream::ServerStatus,
};

/// The relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Relay {
    /// Where it listens.
    pub listeners: Vec<String>,
    /// Its routes.
    pub routes: Vec<Route>,
    /// The servers behind it.
    pub upstreams: Vec<Upstream>,
}

/// A route.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// `graph`, `ews` or `proxy`.
    pub kind: String,
    /// Where it goes.
    pub upstream: String,
    /// Notifications that are stored and wait for delivery.
    pub waiting: u64,
    /// Bytes of their bodies.
    pub waiting_bytes: u64,
    /// When the oldest of them was accepted, RFC 3339.
    pub oldest: Option<String>,
    /// Notifications that were given up.
    pub dead_letters: u64,
    /// The last notification that was accepted, RFC 3339.
    pub last_notification: Option<String>,
    /// Subscriptions that were heard.
    pub subscriptions: usize,
    /// Those of them that have been silent for too long, longest first.
    pub silent: Vec<Silent>,
}

/// A subscription that has been silent for too long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Silent {
    /// Its identifier.
    pub subscription: String,
    /// When it was last heard, RFC 3339.
    pub last: String,
}

/// A pool of servers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
}

/// What `/v1/upstream` is asked for, by POST; it is answered with the [`Upstream`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpstreamOrder {
    /// The upstream.
    pub upstream: String,
    /// Its server; all of them if not given.
    pub server: Option<String>,
    /// Whether nothing new goes there.
    pub drained: bool,
}

/// What `/v1/spool` is asked for, by POST.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum SpoolOrder {
    /// Dead letters, the oldest first.
    List {
        /// Which.
        selection: Selection,
        /// Only those after this one.
        after: Option<RecordId>,
        /// How many at most.
        most: usize,
    },
    /// A notification, waiting or dead.
    Show {
        /// Which.
        id: RecordId,
    },
    /// Deliver dead letters once more.
    Replay {
        /// Which.
        selection: Selection,
    },
    /// Remove dead letters for good.
    Purge {
        /// Which.
        selection: Selection,
    },
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum SpoolAnswer {
    /// To [`SpoolOrder::List`].
    Listed {
        /// The dead letters.
        dead_letters: Vec<DeadLetter>,
    },
    /// To [`SpoolOrder::Show`].
    Shown(Box<Message>),
    /// To [`SpoolOrder::Replay`] and [`SpoolOrder::Purge`].
    Done {
        /// How many there were.
        count: u64,
    },
}

/// A stored notification.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Message {
    /// Its identity.
    pub id: RecordId,
    /// The route that accepted it.
    pub route: String,
    /// Path and query.
    pub target: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// Who sent it.
    pub source: Option<IpAddr>,
    /// The body, if it is text.
    pub body: Option<String>,
    /// The body in hexadecimal digits, if it is not.
    pub body_hex: Option<String>,
}

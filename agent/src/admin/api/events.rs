//! What `/v1/events` answers: a line of JSON for each refused packet that was recorded.

use std::{net::IpAddr, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A line of the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A packet was refused, or in monitor mode would have been.
    Refused(Arc<Refused>),
    /// The reader was too slow.
    Missed {
        /// How many events it did not get.
        count: u64,
    },
}

/// A refused packet. The kernel records the first 128 of a second on each CPU one by one,
/// after that one in 4,096.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When the agent read it, RFC 3339.
    pub at: Timestamp,
    /// The interface that it came in through.
    pub interface: String,
    /// `drop` or `would_drop`.
    pub action: String,
    /// Why.
    pub reason: String,
    /// `ipv4`, `ipv6` or `other`.
    pub family: String,
    /// Its source address.
    pub source: IpAddr,
    /// Its source port, 0 if unknown.
    pub source_port: u16,
    /// Its destination address; unspecified if unknown.
    pub destination: IpAddr,
    /// The guarded port that it tried, 0 if unknown.
    pub port: u16,
    /// Its IP protocol number, 0 if unknown.
    pub protocol: u8,
    /// Its length in bytes.
    pub bytes: u32,
    /// How many refused packets this one stands for.
    pub stands_for: u32,
}

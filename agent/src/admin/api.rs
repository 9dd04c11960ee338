//! What the control socket answers, and `--json` prints. Field names are stable:
//! fields are added, never renamed.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The answer to `/v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Its process number.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// `monitor` or `enforce`.
    pub mode: String,
    /// Parts that are not ready.
    pub waiting_for: Vec<String>,
    /// The filtered interfaces.
    pub interfaces: Vec<Interface>,
    /// The allow-list in force.
    pub list: List,
    /// The instances of the web service in use.
    pub feeds: Vec<Feed>,
    /// The busiest blocked sources of each interface.
    pub blocked: Vec<Blocked>,
}

/// A filtered interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// `native`, `generic` or `offloaded`.
    pub attached: String,
    /// Whether the filter of an earlier run was found in force and taken over.
    pub adopted: bool,
    /// Whether multi-buffer (jumbo) frames are accepted in native mode.
    pub jumbo_frames: bool,
    /// The kernel's id of the program.
    pub program: Option<u32>,
    /// Packets by verdict.
    pub packets: Vec<Packets>,
}

/// Packets of one verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Packets {
    /// `pass`, `drop` or `would_drop`.
    pub action: String,
    /// Why.
    pub reason: String,
    /// `ipv4`, `ipv6` or `other`.
    pub family: String,
    /// How many.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The allow-list in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List {
    /// SHA-256 of its sources and prefixes; equal on hosts that let the same pass.
    pub hash: String,
    /// Its sources.
    pub sources: Vec<Source>,
}

/// A source of the allow-list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// IPv4 prefixes.
    pub ipv4: usize,
    /// IPv6 prefixes.
    pub ipv6: usize,
}

/// An instance of the web service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Feed {
    /// Its name.
    pub instance: String,
    /// Where the list in force was taken from: `live`, `last_known_good`,
    /// `embedded` or `nothing`.
    pub provenance: String,
    /// When that was applied or captured, RFC 3339.
    pub since: Option<String>,
    /// The published version in force, where known.
    pub version: Option<String>,
    /// The last usable answer, RFC 3339.
    pub last_success: Option<String>,
    /// The last poll, RFC 3339.
    pub last_attempt: Option<String>,
    /// The next poll, RFC 3339.
    pub next_attempt: Option<String>,
    /// What is wrong.
    pub problem: Option<Problem>,
    /// Prefixes that are no longer published and will go.
    pub pending_removals: usize,
}

/// What is wrong with a feed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Since when, RFC 3339.
    pub at: String,
    /// The reason, as in metrics.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A blocked source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Blocked {
    /// The interface that it came in through.
    pub interface: String,
    /// Its address.
    pub address: IpAddr,
    /// Its refused packets; an estimate under a flood.
    pub packets: u64,
    /// The last of them, RFC 3339.
    pub last_seen: String,
    /// The guarded port that it tried last.
    pub port: u16,
    /// `drop` or `would_drop`.
    pub action: String,
}

/// The answer to `/v1/check`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Check {
    /// The address.
    pub address: IpAddr,
    /// `agent` if a running agent answered, `offline` if the stored list did.
    pub answered_by: String,
    /// `monitor` or `enforce`.
    pub mode: String,
    /// The verdict on every guard.
    pub verdicts: Vec<Verdict>,
    /// Every prefix of the list that contains the address.
    pub matches: Vec<Match>,
    /// The published versions behind the list.
    pub feeds: Vec<CheckedFeed>,
    /// Hash of the list.
    pub list: String,
    /// What was last refused from this address, if anything.
    pub blocked: Option<Blocked>,
}

/// The verdict of one guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Destination port.
    pub port: u16,
    /// `pass`, `drop` or `would_drop`.
    pub action: String,
    /// `allowed` or `unlisted`.
    pub reason: String,
    /// The sources that this guard accepts.
    pub accepts: Vec<String>,
}

/// A prefix that contains the address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Match {
    /// The source that holds it.
    pub source: String,
    /// The prefix.
    pub prefix: IpNet,
    /// Who says so.
    pub origin: String,
}

/// A published version behind the list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckedFeed {
    /// The instance.
    pub instance: String,
    /// Its version, where known.
    pub version: Option<String>,
    /// Where it was taken from.
    pub provenance: String,
    /// When it was applied or captured, RFC 3339.
    pub since: Option<String>,
}

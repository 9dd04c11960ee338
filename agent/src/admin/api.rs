//! What the control socket answers, and `--json` prints. Field names are stable:
//! fields are added, never renamed.

pub mod events;
pub mod relay;

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
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
    /// What the configuration says; another one, if an operator ordered so.
    #[serde(default)]
    pub configured_mode: String,
    /// When the mode before comes back, unless this one is confirmed, RFC 3339.
    #[serde(default)]
    pub confirm_by: Option<Timestamp>,
    /// Parts that are not ready.
    pub waiting_for: Vec<String>,
    /// The filtered interfaces.
    pub interfaces: Vec<Interface>,
    /// The allow-list in force.
    pub list: List,
    /// The feeds in use.
    pub feeds: Vec<Feed>,
    /// Whether an operator holds back all updates of feeds.
    #[serde(default)]
    pub hold: bool,
    /// What operators let pass for a while.
    #[serde(default)]
    pub temporary: Vec<Temporary>,
    /// The busiest blocked sources of each interface.
    pub blocked: Vec<Blocked>,
    /// The relay, if there is one.
    #[serde(default)]
    pub relay: Option<relay::Relay>,
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

/// A feed: an instance of the web service, or what a source alone follows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Feed {
    /// The name of the instance, or of the source.
    pub feed: String,
    /// `instance` or `source`.
    #[serde(default)]
    pub kind: String,
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
    /// What it says and is not in force: refused, or held back.
    #[serde(default)]
    pub offered: Option<String>,
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
    /// Whether `exogate feed accept` takes it all the same.
    #[serde(default)]
    pub can_be_accepted: bool,
}

/// What passes for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Temporary {
    /// The prefix.
    pub prefix: IpNet,
    /// Why.
    pub reason: String,
    /// Since when, RFC 3339.
    pub since: Timestamp,
    /// Until when, RFC 3339.
    pub until: Timestamp,
}

/// The answer to `/v1/diff`: running against offered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Diff {
    /// Whether an operator holds back all updates.
    pub hold: bool,
    /// Every feed.
    pub feeds: Vec<FeedDiff>,
}

/// What a feed would change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FeedDiff {
    /// The instance, or the source.
    pub feed: String,
    /// The version in force, where known.
    pub running: Option<String>,
    /// The version that is not in force, if there is one.
    pub offered: Option<String>,
    /// When that was seen, RFC 3339.
    pub seen: Option<String>,
    /// Prefixes that would come.
    pub added: Vec<Change>,
    /// Prefixes that would go, after the grace period.
    pub removed: Vec<Change>,
    /// Prefixes that will go in any case.
    pub pending: Vec<Change>,
    /// What is wrong with what is offered, or with the last poll.
    pub problem: Option<Problem>,
}

/// A prefix that comes or goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The source.
    pub source: String,
    /// The prefix.
    pub prefix: IpNet,
}

/// What `/v1/order` is asked for, by POST.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Poll all feeds.
    Refresh {
        /// Only to see what they say.
        #[serde(default)]
        dry_run: bool,
    },
    /// Poll a feed and take what it says even if much is lost.
    Accept {
        /// The instance, or the source.
        feed: String,
    },
    /// Hold back all updates of feeds.
    Hold,
    /// End that.
    Resume,
    /// Take the content of a feed.
    Import {
        /// The instance, or the source.
        feed: String,
        /// The version of an answer of the web service.
        version: Option<String>,
        /// Take it even if much is lost.
        #[serde(default)]
        accept: bool,
        /// The answer, or the list.
        content: String,
    },
    /// Drop what is refused.
    Enforce {
        /// For so long, unless it is confirmed.
        #[serde(default)]
        confirm_within_seconds: Option<u64>,
    },
    /// Make that last.
    Confirm,
    /// Drop nothing any more.
    Monitor,
    /// Let a prefix pass for a while.
    Allow {
        /// The prefix.
        prefix: IpNet,
        /// For how long.
        seconds: u64,
        /// Why.
        reason: String,
    },
    /// Take that back.
    Disallow {
        /// The prefix.
        prefix: IpNet,
    },
}

/// What became of an order that was obeyed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Obeyed {
    /// Running against offered, afterwards.
    pub diff: Diff,
    /// What passes for a while, afterwards.
    pub temporary: Vec<Temporary>,
    /// Hash of the list, afterwards.
    pub list: String,
    /// `monitor` or `enforce`, afterwards.
    #[serde(default)]
    pub mode: String,
    /// What the configuration says about it.
    #[serde(default)]
    pub configured_mode: String,
    /// When the mode before comes back, unless this one is confirmed, RFC 3339.
    #[serde(default)]
    pub confirm_by: Option<Timestamp>,
}

/// The answer to `/v1/history`, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    /// The records.
    pub records: Vec<crate::allowlist::Record>,
}

/// The form of a list for others: `/export`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// One prefix per line
    Plain,
    /// Sets for `nft -f`
    Nft,
    /// Sets for `ipset restore`
    Ipset,
    /// JSON, which another agent's source of kind "url" reads
    Json,
}

impl ExportFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Nft, Self::Ipset, Self::Json];

    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Nft => "nft",
            Self::Ipset => "ipset",
            Self::Json => "json",
        }
    }
}

/// The JSON of an export.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Export {
    /// Hash of the list.
    pub hash: String,
    /// Its sources.
    pub sources: Vec<ExportedSource>,
}

/// A source of an export.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExportedSource {
    /// Its name.
    pub name: String,
    /// Its prefixes.
    pub prefixes: Vec<ExportedPrefix>,
}

/// A prefix of an export.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExportedPrefix {
    /// The prefix.
    pub prefix: IpNet,
    /// Who says so.
    pub origin: String,
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
    /// The prefix of the list that is nearest to it, if one is near.
    #[serde(default)]
    pub nearest: Option<Nearest>,
}

/// A prefix of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nearest {
    /// The prefix.
    pub prefix: IpNet,
    /// The source that holds it.
    pub source: String,
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
    /// Of a refused address: what Microsoft publishes it as, and the chosen
    /// sources leave out.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

/// A published prefix that no chosen source takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The instance of the web service.
    pub instance: String,
    /// The prefix that contains the address.
    pub prefix: IpNet,
    /// The endpoint set, unless it stands on another page of Microsoft's.
    pub set: Option<u32>,
    /// Its service area.
    pub service_area: Option<String>,
    /// Its hosts.
    pub urls: Vec<String>,
    /// Who says so, as a sentence.
    pub origin: String,
    /// What to add to the guard for the address to pass.
    pub suggestion: String,
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
    /// The instance, or the source.
    pub feed: String,
    /// Its version, where known.
    pub version: Option<String>,
    /// Where it was taken from.
    pub provenance: String,
    /// When it was applied or captured, RFC 3339.
    pub since: Option<String>,
}

//! Answers about the state of the agent and about verdicts.

use std::{net::IpAddr, sync::Arc};

use exogate_ebpf::verdict::{Action, Reason};
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::{
    admin::{
        AuditRecord, Control, Health, Recent,
        api::{
            Blocked, Check, CheckedFeed, Diff, ExportFormat, Feed, History, Interface, List, Match,
            Nearest, Obeyed, Order, Packets, Problem, Source, Status, Temporary, Verdict,
            relay::{SpoolAnswer, SpoolOrder, Upstream, UpstreamOrder},
        },
        audit_records,
    },
    allowlist::{self, AllowList, Command, FeedStatus},
    config::{Config, Mode, TEMPORARY},
    daemon::{Shared, export::export, left_out::left_out, orders, relay},
    gate::BlockedSource,
    relay::Running,
    source::feed::FeedId,
};

/// How many blocked sources `status` shows of each interface.
const SHOWN: usize = 10;

/// What would become of packets from an address, by a list and a configuration.
#[must_use]
pub fn explain(list: &AllowList, config: &Config, address: IpAddr) -> Check {
    let address = address.to_canonical();
    let found = list.lookup(address);
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.as_str()).collect();
    let mut verdicts = Vec::new();
    for guard in &config.guards {
        let accepts: Vec<String> = guard
            .sources
            .iter()
            .filter_map(|&place| names.get(place).map(|&name| name.to_owned()))
            .collect();
        let allowed = found.iter().any(|found| {
            found.source == TEMPORARY || accepts.iter().any(|name| name == found.source)
        });
        let (action, reason) = match (allowed, config.mode) {
            (true, _) => (Action::Pass, Reason::Allowed),
            (false, Mode::Enforce) => (Action::Drop, Reason::Unlisted),
            (false, Mode::Monitor) => (Action::WouldDrop, Reason::Unlisted),
        };
        for protocol in &guard.protocols {
            for &port in &guard.ports {
                verdicts.push(Verdict {
                    protocol: protocol.name().to_owned(),
                    port,
                    action: action.name().to_owned(),
                    reason: reason.name().to_owned(),
                    accepts: accepts.clone(),
                });
            }
        }
    }
    Check {
        address,
        answered_by: "offline".to_owned(),
        mode: config.mode.name().to_owned(),
        verdicts,
        matches: found
            .iter()
            .map(|found| Match {
                source: found.source.to_owned(),
                prefix: found.entry.prefix,
                origin: found.entry.origin.to_string(),
            })
            .collect(),
        feeds: list
            .feeds()
            .iter()
            .map(|feed| CheckedFeed {
                feed: feed.id.to_string(),
                version: feed.revision.as_ref().map(ToString::to_string),
                provenance: feed.provenance.name().to_owned(),
                since: text(feed.provenance.time()),
            })
            .collect(),
        list: list.hash().to_owned(),
        blocked: None,
        left_out: if found.is_empty() { left_out(list, config, address) } else { Vec::new() },
    }
}

/// Answers for a running agent.
pub(super) struct Explainer {
    pub(super) shared: Shared,
    pub(super) list: watch::Receiver<allowlist::Status>,
    pub(super) health: Health,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) relay: Option<Arc<Running>>,
}

impl Explainer {
    fn blocked(&self, most: usize, wanted: impl Fn(&BlockedSource) -> bool) -> Vec<Blocked> {
        let list = Arc::clone(&self.list.borrow().list);
        let nearest = |address| {
            list.nearest(address).map(|found| Nearest {
                prefix: found.entry.prefix,
                source: found.source.to_owned(),
            })
        };
        let by_interface = self.shared.gates.map(|gate| {
            let interface = gate.interface().name.clone();
            let sources = gate.program().blocked(usize::MAX).unwrap_or_else(|error| {
                tracing::warn!(interface, %error, "cannot read the blocked sources");
                Vec::new()
            });
            sources
                .into_iter()
                .filter(|source| wanted(source))
                .take(most)
                .map(|source| Blocked {
                    interface: interface.clone(),
                    address: source.address,
                    packets: source.packets,
                    last_seen: text(Timestamp::from_second(source.last_seen.into()).ok())
                        .unwrap_or_default(),
                    port: source.port,
                    action: source.action.to_owned(),
                    nearest: nearest(source.address),
                })
                .collect::<Vec<_>>()
        });
        by_interface.concat()
    }

    fn interfaces(&self) -> Vec<Interface> {
        self.shared.gates.map(|gate| {
            let interface = gate.interface();
            let counts = gate.program().counts().unwrap_or_else(|error| {
                tracing::warn!(interface = interface.name, %error, "cannot read the counters");
                Vec::new()
            });
            Interface {
                name: interface.name.clone(),
                index: interface.index,
                attached: gate.mode().name().to_owned(),
                adopted: gate.adopted(),
                jumbo_frames: gate.program().takes_jumbo_frames(),
                program: gate.program().id(),
                packets: counts
                    .iter()
                    .filter(|count| count.packets > 0)
                    .map(|count| Packets {
                        action: count.action.name().to_owned(),
                        reason: count.reason.name().to_owned(),
                        family: count.family.name().to_owned(),
                        packets: count.packets,
                        bytes: count.bytes,
                    })
                    .collect(),
            }
        })
    }
}

impl Control for Explainer {
    fn status(&self) -> Status {
        let status = self.list.borrow().clone();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.shared.started.to_string(),
            mode: status.mode.name().to_owned(),
            configured_mode: status.configured_mode.name().to_owned(),
            confirm_by: status.confirm_by,
            waiting_for: self.health.pending(),
            interfaces: self.interfaces(),
            list: List {
                hash: status.list.hash().to_owned(),
                sources: status
                    .list
                    .sources()
                    .iter()
                    .map(|source| {
                        let (ipv4, ipv6) = source.count();
                        Source { name: source.name.clone(), ipv4, ipv6 }
                    })
                    .collect(),
            },
            feeds: status
                .feeds
                .iter()
                .map(|(id, of)| {
                    let offered = status.offers.get(id).map(|offer| offer.revision.to_string());
                    Feed { offered, ..feed(of) }
                })
                .collect(),
            hold: status.hold,
            temporary: status.temporary.iter().map(temporary).collect(),
            blocked: self.blocked(SHOWN, |_| true),
            relay: self.relay.as_deref().map(relay::status),
        }
    }

    fn check(&self, address: IpAddr) -> Check {
        let list = self.list.borrow().list.clone();
        let mut check = explain(&list, &self.shared.config(), address);
        "agent".clone_into(&mut check.answered_by);
        check.blocked = self.blocked(1, |source| source.address == check.address).pop();
        check
    }

    fn diff(&self) -> Diff {
        orders::diff(&self.list.borrow())
    }

    fn history(&self) -> Result<History, String> {
        let directory = self.shared.config().state_directory.clone();
        let records = allowlist::History::new(&directory).read();
        let failed = |error| format!("reading the history in {}: {error}", directory.display());
        Ok(History { records: records.map_err(failed)? })
    }

    fn audit(&self) -> Result<Vec<AuditRecord>, String> {
        let directory = self.shared.config().state_directory.clone();
        let failed = |error| format!("reading the audit log in {}: {error}", directory.display());
        audit_records(&directory).map_err(failed)
    }

    fn temporary(&self) -> Vec<Temporary> {
        self.list.borrow().temporary.iter().map(temporary).collect()
    }

    fn export(&self, format: ExportFormat, sources: &[String]) -> Result<String, String> {
        let list = Arc::clone(&self.list.borrow().list);
        export(&list, format, sources)
    }

    fn events(&self) -> Recent {
        self.shared.drops.recent()
    }

    fn obey(&self, order: Order) -> BoxFuture<'static, Result<Obeyed, String>> {
        let (commands, list) = (self.commands.clone(), self.list.clone());
        Box::pin(orders::obey(order, self.shared.config(), commands, list))
    }

    fn spool(&self, order: SpoolOrder) -> BoxFuture<'static, Result<SpoolAnswer, String>> {
        let spool = self.relay.as_deref().and_then(Running::spool);
        Box::pin(relay::obey(order, spool))
    }

    fn upstream(&self, order: UpstreamOrder) -> BoxFuture<'static, Result<Upstream, String>> {
        let obeyed = relay::drain(order, self.relay.as_deref());
        Box::pin(std::future::ready(obeyed))
    }
}

fn feed(feed: &FeedStatus) -> Feed {
    Feed {
        feed: feed.id.to_string(),
        kind: match feed.id {
            FeedId::Instance(_) => "instance".to_owned(),
            FeedId::Source(_) => "source".to_owned(),
        },
        provenance: feed.provenance.name().to_owned(),
        since: text(feed.provenance.time()),
        version: feed.revision.as_ref().map(ToString::to_string),
        last_success: text(feed.last_success),
        last_attempt: text(feed.last_attempt),
        next_attempt: text(feed.next_attempt),
        problem: feed.problem.as_ref().map(problem),
        pending_removals: feed.pending_removals.len(),
        offered: None,
    }
}

pub(super) fn problem(problem: &allowlist::Problem) -> Problem {
    Problem {
        at: problem.at.to_string(),
        reason: problem.reason.to_owned(),
        message: problem.message.clone(),
        can_be_accepted: problem.can_be_accepted,
    }
}

pub(super) fn temporary(entry: &allowlist::Temporary) -> Temporary {
    Temporary {
        prefix: entry.prefix,
        reason: entry.reason.clone(),
        since: entry.since,
        until: entry.until,
    }
}

fn text(time: Option<Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}

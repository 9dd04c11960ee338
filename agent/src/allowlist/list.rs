//! The list that decides who may pass.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    sync::Arc,
};

use aws_lc_rs::digest;
use exogate_ebpf::compile::{self, Policy, Prefix};
use ipnet::IpNet;

use super::{
    Change,
    held::{Held, Known, Provenance},
};
use crate::{
    config::{Config, Destinations, Mode, Source, TEMPORARY, TEMPORARY_SOURCE},
    source::{
        self, Entry,
        feed::{Content, FeedId, Revision},
    },
};

/// The sources of a configuration with their prefixes. It never changes; a change
/// of the list is another list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowList {
    sources: Vec<Listed>,
    temporary: Listed,
    feeds: Vec<FeedVersion>,
    hash: String,
}

/// A source with its prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its entries, sorted by prefix, each prefix once.
    pub entries: Vec<Entry>,
}

/// What the list knows of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedVersion {
    /// The feed.
    pub id: FeedId,
    /// The revision of its content, where known.
    pub revision: Option<Revision>,
    /// Where it was taken from.
    pub provenance: Provenance,
    /// Its content, also what no source takes.
    pub content: Arc<Content>,
}

/// Why an address is on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match<'a> {
    /// The name of the source.
    pub source: &'a str,
    /// The entry that contains the address.
    pub entry: &'a Entry,
}

impl AllowList {
    /// Puts together what is known of the sources, including what is about to be
    /// removed from them.
    #[must_use]
    pub fn build(sources: &[Source], known: &Known) -> Self {
        let feeds: BTreeMap<FeedId, &Held> = sources
            .iter()
            .filter_map(Source::feed)
            .filter_map(|id| known.held.get(&id).map(|held| (id, held)))
            .collect();
        let listed: Vec<_> = sources
            .iter()
            .map(|source| {
                let mut entries = source.definition.fixed();
                if let Some(held) = source.feed().and_then(|id| feeds.get(&id)) {
                    entries.extend(source.definition.take(&held.content));
                    let pending = held.pending.iter().filter(|p| p.source == source.name);
                    entries.extend(pending.map(|pending| pending.entry.clone()));
                }
                source::sort(&mut entries);
                Listed { name: source.name.clone(), entries }
            })
            .collect();
        let mut entries: Vec<_> = known.temporary.iter().map(super::Temporary::entry).collect();
        source::sort(&mut entries);
        let temporary = Listed { name: TEMPORARY.to_owned(), entries };
        let feeds = feeds
            .into_iter()
            .map(|(id, held)| FeedVersion {
                id,
                revision: held.revision.clone(),
                provenance: held.provenance.clone(),
                content: Arc::clone(&held.content),
            })
            .collect();
        let hash = hash(&listed, &temporary);
        Self { sources: listed, temporary, feeds, hash }
    }

    /// The sources, in the order of their bits.
    #[must_use]
    pub fn sources(&self) -> &[Listed] {
        &self.sources
    }

    /// What operators let pass for a while, through every guard.
    #[must_use]
    pub const fn temporary(&self) -> &Listed {
        &self.temporary
    }

    /// The sources and, if there are any, the temporary entries.
    pub fn all(&self) -> impl Iterator<Item = &Listed> {
        let temporary = (!self.temporary.entries.is_empty()).then_some(&self.temporary);
        self.sources.iter().chain(temporary)
    }

    /// What the list has that another has not.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Vec<Change> {
        let prefixes: BTreeSet<(&str, IpNet)> = other.changes().collect();
        self.changes()
            .filter(|pair| !prefixes.contains(pair))
            .map(|(source, prefix)| Change { source: source.to_owned(), prefix })
            .collect()
    }

    fn changes(&self) -> impl Iterator<Item = (&str, IpNet)> {
        self.all().flat_map(|listed| {
            listed.entries.iter().map(|entry| (listed.name.as_str(), entry.prefix))
        })
    }

    /// The feeds behind the sources.
    #[must_use]
    pub fn feeds(&self) -> &[FeedVersion] {
        &self.feeds
    }

    /// SHA-256 of the names of the sources and their prefixes, temporary entries
    /// included, in hexadecimal. It
    /// does not depend on versions, origins or the order of sources, so that two
    /// hosts with the same hash let the same addresses pass.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Every entry that contains the address.
    #[must_use]
    pub fn lookup(&self, address: IpAddr) -> Vec<Match<'_>> {
        // What an application calls ::ffff:a.b.c.d is an IPv4 packet.
        let address = address.to_canonical();
        self.all()
            .flat_map(|source| {
                source
                    .entries
                    .iter()
                    .filter(move |entry| entry.prefix.contains(&address))
                    .map(|entry| Match { source: &source.name, entry })
            })
            .collect()
    }

    /// The entry that has the most leading bits in common with an address, if there are
    /// enough of them to mean something.
    #[must_use]
    pub fn nearest(&self, address: IpAddr) -> Option<Match<'_>> {
        let address = address.to_canonical();
        let (host, least) = (IpNet::from(address), if address.is_ipv4() { 8 } else { 16 });
        let neighbours = self.all().flat_map(|source| {
            // They are sorted, so it stands on either side of the address's place.
            let place = source.entries.partition_point(|entry| entry.prefix < host);
            let first = place.saturating_sub(1);
            let beside = source.entries.iter().skip(first).take(2);
            beside.map(|entry| Match { source: &source.name, entry })
        });
        neighbours
            .map(|found| (common_bits(found.entry.prefix, address), found))
            .filter(|(bits, _)| *bits >= least)
            .max_by_key(|(bits, _)| *bits)
            .map(|(_, found)| found)
    }

    /// Names of sources without any prefix. Where the mode is enforce, nobody
    /// passes through them.
    pub fn empty_sources(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().filter(|source| source.entries.is_empty()).map(|s| s.name.as_str())
    }

    /// What the gate is to decide by. The list has to be made from this
    /// configuration. `local` are the addresses of the host, for
    /// [`Destinations::Local`].
    #[must_use]
    pub fn policy(&self, config: &Config, local: &[IpAddr]) -> Policy {
        let destinations = match &config.gate.destinations {
            None | Some(Destinations::Any) => None,
            Some(Destinations::Local) => {
                Some(local.iter().map(|address| pair(IpNet::from(*address))).collect())
            }
            Some(Destinations::Prefixes(prefixes)) => {
                Some(prefixes.iter().map(|prefix| pair(*prefix)).collect())
            }
        };
        let bits = (0..).map_while(|bit| 1u32.checked_shl(bit));
        let prefixes = self
            .sources
            .iter()
            .zip(bits)
            .chain([(&self.temporary, TEMPORARY_SOURCE)])
            .flat_map(|(source, sources)| {
                source.entries.iter().map(move |entry| {
                    let (address, length) = pair(entry.prefix);
                    Prefix { address, length, sources }
                })
            })
            .collect();
        let guards = config
            .guards
            .iter()
            .flat_map(|guard| {
                guard.protocols.iter().flat_map(move |protocol| {
                    guard.ports.iter().map(move |port| compile::Guard {
                        protocol: (*protocol).into(),
                        port: *port,
                        sources: guard.mask() | TEMPORARY_SOURCE,
                    })
                })
            })
            .collect();
        let enforce = config.mode == Mode::Enforce;
        Policy { enforce, deadline: None, destinations, prefixes, guards }
    }
}

impl Listed {
    /// Prefixes of IPv4 and of IPv6.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let v4 = self.entries.iter().filter(|entry| entry.prefix.addr().is_ipv4()).count();
        (v4, self.entries.len().saturating_sub(v4))
    }
}

fn pair(prefix: IpNet) -> (IpAddr, u8) {
    (prefix.network(), prefix.prefix_len())
}

fn hash(sources: &[Listed], temporary: &Listed) -> String {
    let temporary = (!temporary.entries.is_empty()).then_some(temporary);
    let mut sorted: Vec<_> = sources.iter().chain(temporary).collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut context = digest::Context::new(&digest::SHA256);
    for source in sorted {
        context.update(format!("[{}]\n", source.name).as_bytes());
        for entry in &source.entries {
            context.update(format!("{}\n", entry.prefix).as_bytes());
        }
    }
    hexadecimal(context.finish().as_ref())
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Leading bits that a prefix and an address have in common.
fn common_bits(prefix: IpNet, address: IpAddr) -> u32 {
    let bits = match (prefix.network(), address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    bits.min(prefix.prefix_len().into())
}

#[cfg(test)]
mod tests {
    use exogate_ebpf::compile::Protocol;

    use super::*;
    use crate::{allowlist::held, source::microsoft365::Instance};

    const WORLDWIDE: FeedId = FeedId::Instance(Instance::Worldwide);

    fn known(held: Held) -> Known {
        Known { held: [(WORLDWIDE, held)].into(), ..Known::default() }
    }

    fn embedded() -> (Config, AllowList) {
        let config = Config::default();
        let list = AllowList::build(&config.sources, &known(held::embedded(&WORLDWIDE)));
        (config, list)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_embedded_list_has_the_prefixes_of_the_capture() {
        let (_, list) = embedded();
        assert_eq!(list.sources()[0].count(), (16, 18), "Exchange, TCP port 443");
        assert_eq!(list.sources()[1].count(), (94, 12), "Graph: 90 addresses and 16 ranges");
        assert_eq!(list.empty_sources().count(), 0);
        assert_eq!(list.feeds()[0].revision, None);
    }

    #[test]
    fn a_verdict_is_explained_by_source_and_origin() {
        let (_, list) = embedded();
        // The one captured push came from here.
        let found = list.lookup(address("2603:1026:c02:3097::5"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].source, "exchange-online");
        assert!(found[0].entry.origin.to_string().starts_with("endpoint set 1 (Exchange: outlook"));

        let found = list.lookup(address("20.9.37.73"));
        assert_eq!(found[0].source, "graph-notifications");
        assert!(found[0].entry.origin.to_string().ends_with("2025-01-08"));

        assert_eq!(list.lookup(address("::ffff:40.96.1.1")).len(), 1);
        assert!(list.lookup(address("192.0.2.1")).is_empty());
    }

    #[test]
    fn the_hash_names_what_passes_and_nothing_else() {
        let (config, list) = embedded();
        assert_eq!(list.hash().len(), 64);
        let mut held = held::embedded(&WORLDWIDE);
        held.revision = "2026052900".parse().ok().map(Revision::Version);
        let mut sources = config.sources.clone();
        sources.reverse();
        let same = AllowList::build(&sources, &known(held.clone()));
        assert_eq!(same.hash(), list.hash());

        let mut sets = held.content.sets().to_vec();
        let gone = sets[0].ips.pop().unwrap();
        held.content = Arc::new(Content::Sets(sets));
        let other = AllowList::build(&sources, &known(held));
        let lost = Change { source: "exchange-online".to_owned(), prefix: gone };
        assert_eq!((list.beyond(&other), other.beyond(&list)), (vec![lost], vec![]));
        assert_ne!(other.hash(), list.hash());
    }

    #[test]
    fn the_nearest_prefix_has_the_most_bits_in_common() {
        let (_, list) = embedded();
        let nearest =
            |text: &str| list.nearest(address(text)).map(|found| found.entry.prefix.to_string());
        assert_eq!(nearest("40.104.0.1").as_deref(), Some("40.104.0.0/15"), "it is contained");
        assert_eq!(nearest("40.103.255.1").as_deref(), Some("40.96.0.0/13"));
        assert_eq!(nearest("52.159.23.210").as_deref(), Some("52.159.23.209/32"));
        assert_eq!(nearest("203.0.113.7"), None, "nothing is near");
        assert!(nearest("2603:1026:ffff::1").is_some());
    }

    #[test]
    fn the_policy_has_a_bit_for_each_source_and_a_guard_for_each_port() {
        let (mut config, list) = embedded();
        config.gate.destinations = Some(Destinations::Local);
        let policy = list.policy(&config, &[address("198.51.100.1")]);
        assert!(!policy.enforce);
        assert_eq!(policy.destinations, Some(vec![(address("198.51.100.1"), 32)]));
        assert_eq!(policy.prefixes.iter().filter(|prefix| prefix.sources == 0b01).count(), 34);
        assert_eq!(policy.prefixes.iter().filter(|prefix| prefix.sources == 0b10).count(), 106);
        let guard =
            |protocol| compile::Guard { protocol, port: 443, sources: 0b11 | TEMPORARY_SOURCE };
        assert_eq!(policy.guards, [guard(Protocol::Tcp), guard(Protocol::Udp)]);
        assert!(compile::compile(&policy).is_ok());
    }
}

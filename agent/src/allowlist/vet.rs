//! Whether an answer may replace what is in force.
//!
//! An answer is refused as a whole: half of a publication is nothing that
//! Microsoft ever published. The list in force stays, and the refusal is loud.
//! Two kinds of fault are told apart: an answer that cannot be right
//! ([`vet_sets`]), and one that may be but is improbable ([`vet_change`]), which
//! an operator can accept.
//!
//! The limits come from what was seen. The service has published an empty
//! version (2018112800); the widest prefixes ever are /13 and /35; the largest
//! honest loss of the Exchange prefixes in one version is 26 %.

use std::sync::LazyLock;

use ipnet::IpNet;

use crate::{
    config::Source,
    source::microsoft365::{EndpointSet, Instance},
};

/// Widest prefix that is believed.
const WIDEST_V4: u8 = 11;
const WIDEST_V6: u8 = 28;
/// Loss of a source that is refused, and that is warned of, in percent.
const REFUSED_LOSS: usize = 50;
const WARNED_LOSS: usize = 35;

/// Why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A source would take nothing from it.
    #[error(
        "nothing in the answer meets the source {name} ({criteria}), which has {held} prefixes of \
         it in force; if that is right, accept it by hand, or change the source"
    )]
    NoPrefixes {
        /// The source.
        name: String,
        /// What it looks for.
        criteria: String,
        /// What it had.
        held: usize,
    },
    /// A prefix that is wider than any ever published.
    #[error("endpoint set {set} has the prefix {prefix}, which is absurdly wide")]
    TooWide {
        /// The set.
        set: u32,
        /// The prefix.
        prefix: IpNet,
    },
    /// A prefix that is not of the public internet.
    #[error("endpoint set {set} has the prefix {prefix}, which is not of the public internet")]
    NotPublic {
        /// The set.
        set: u32,
        /// The prefix.
        prefix: IpNet,
    },
    /// An IPv4 address in IPv6 form, which never stands in a packet.
    #[error("endpoint set {set} has the prefix {prefix}, an IPv4 address in IPv6 form")]
    Ipv4Mapped {
        /// The set.
        set: u32,
        /// The prefix.
        prefix: IpNet,
    },
    /// An address behind the length.
    #[error("endpoint set {set} has {prefix}, with bits set behind its length")]
    HostBits {
        /// The set.
        set: u32,
        /// The prefix.
        prefix: IpNet,
    },
    /// A source would lose too much at once.
    #[error(
        "the source {name} loses {lost} of its {held} prefixes at once; where that is refused, an \
         operator can accept it"
    )]
    RemovesTooMuch {
        /// The source.
        name: String,
        /// Prefixes no longer covered.
        lost: usize,
        /// Prefixes in force.
        held: usize,
    },
}

impl Refusal {
    /// The reason as a metric label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoPrefixes { .. } => "no_prefixes",
            Self::TooWide { .. } => "too_wide",
            Self::NotPublic { .. } => "not_public",
            Self::Ipv4Mapped { .. } => "ipv4_mapped",
            Self::HostBits { .. } => "host_bits",
            Self::RemovesTooMuch { .. } => "removes_too_much",
        }
    }

    /// Whether an operator can accept the answer all the same.
    #[must_use]
    pub const fn can_be_accepted(&self) -> bool {
        matches!(self, Self::NoPrefixes { .. } | Self::RemovesTooMuch { .. })
    }
}

/// Checks every prefix, whether a source takes it or not: one that cannot be
/// right says something about the rest, and a later configuration may take it.
///
/// # Errors
///
/// The first fault.
pub fn vet_sets(sets: &[EndpointSet]) -> Result<(), Refusal> {
    for set in sets {
        for prefix in &set.ips {
            vet_prefix(set.id, *prefix)?;
        }
    }
    Ok(())
}

fn vet_prefix(set: u32, prefix: IpNet) -> Result<(), Refusal> {
    if prefix.trunc() != prefix {
        return Err(Refusal::HostBits { set, prefix });
    }
    let widest = match prefix {
        IpNet::V4(_) => WIDEST_V4,
        IpNet::V6(v6) => {
            if v6.addr().to_ipv4_mapped().is_some() {
                return Err(Refusal::Ipv4Mapped { set, prefix });
            }
            // 2000::/3 is all there is of global unicast (RFC 4291).
            if v6.addr().segments().first().is_none_or(|first| first >> 13 != 1) {
                return Err(Refusal::NotPublic { set, prefix });
            }
            WIDEST_V6
        }
    };
    if NOT_PUBLIC.iter().any(|special| special.contains(&prefix) || prefix.contains(special)) {
        return Err(Refusal::NotPublic { set, prefix });
    }
    if prefix.prefix_len() < widest {
        return Err(Refusal::TooWide { set, prefix });
    }
    Ok(())
}

/// What the special-purpose registries of IANA take out of unicast space.
static NOT_PUBLIC: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let texts = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
    ];
    texts.iter().filter_map(|text| text.parse().ok()).collect()
});

/// Which improbable answers are taken with a warning instead of being refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leniency {
    /// None.
    Strict,
    /// Great losses, because the sets held are the built-in ones. These may be
    /// years old, and refusing would keep out what is new meanwhile. What is lost
    /// stays for the grace period, as always.
    Losses,
    /// Whatever an operator can accept, because one has.
    Accepted,
}

/// Compares, for every source that follows the instance, what an answer leaves of
/// it with what is in force. Prefixes that are covered by wider ones are not
/// lost: Microsoft has merged 19 prefixes into fewer without giving up an
/// address. Returns warnings.
///
/// # Errors
///
/// The first source that would lose too much.
pub fn vet_change(
    sources: &[Source],
    instance: Instance,
    held: &[EndpointSet],
    answer: &[EndpointSet],
    leniency: Leniency,
) -> Result<Vec<String>, Refusal> {
    let mut warnings = Vec::new();
    let mut object = |refusal: Refusal, taken: bool| {
        if !taken {
            return Err(refusal);
        }
        warnings.push(refusal.to_string());
        Ok(())
    };
    for source in sources {
        if source.definition.instance() != Some(instance) {
            continue;
        }
        let prefixes = |sets: &[EndpointSet]| -> Vec<IpNet> {
            source.definition.select(sets).iter().map(|entry| entry.prefix).collect()
        };
        let fixed: Vec<_> = source.definition.fixed().iter().map(|entry| entry.prefix).collect();
        let (before, after) = (prefixes(held), prefixes(answer));
        let name = source.name.clone();
        // A source that also has fixed prefixes may never have had others, as
        // Graph in a cloud whose Graph set has no addresses.
        if after.is_empty() && (fixed.is_empty() || !before.is_empty()) {
            let criteria = source.definition.to_string();
            let refusal = Refusal::NoPrefixes { name, criteria, held: before.len() };
            object(refusal, leniency == Leniency::Accepted)?;
            continue;
        }
        let covered = Coverage::new(after.iter().chain(&fixed));
        let lost = before.iter().filter(|prefix| !covered.contains(prefix)).count();
        let held = before.len().saturating_add(fixed.len());
        let beyond = |percent| lost.saturating_mul(100) > held.saturating_mul(percent);
        let refusal = Refusal::RemovesTooMuch { name, lost, held };
        if beyond(REFUSED_LOSS) {
            object(refusal, leniency != Leniency::Strict)?;
        } else if beyond(WARNED_LOSS) {
            object(refusal, true)?;
        }
    }
    Ok(warnings)
}

/// Addresses as a sorted list of prefixes that do not overlap.
pub(super) struct Coverage(Vec<IpNet>);

impl Coverage {
    pub(super) fn new<'a>(prefixes: impl Iterator<Item = &'a IpNet>) -> Self {
        let mut merged = IpNet::aggregate(&prefixes.copied().collect());
        merged.sort();
        Self(merged)
    }

    /// Whether every address of the prefix is covered.
    pub(super) fn contains(&self, prefix: &IpNet) -> bool {
        let behind = self.0.partition_point(|merged| merged.network() <= prefix.network());
        behind.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|m| m.contains(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, source::microsoft365::parse_endpoints};

    fn read(file: &str) -> Vec<EndpointSet> {
        let path = format!("{}/../tests/data/{file}", env!("CARGO_MANIFEST_DIR"));
        parse_endpoints(&std::fs::read(path).unwrap()).unwrap().into_sets()
    }

    fn history(instance: &str) -> Vec<(String, Vec<EndpointSet>)> {
        let directory = format!("{}/../tests/data/history", env!("CARGO_MANIFEST_DIR"));
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with(instance) && !name.contains("partial"))
            .collect();
        names.sort();
        names.into_iter().map(|name| (name.clone(), read(&format!("history/{name}")))).collect()
    }

    fn sources(names: &str) -> Vec<Source> {
        let text = format!("[[guard]]\nport = 443\nsources = [{names}]");
        Config::parse("test".as_ref(), &text).unwrap().sources
    }

    fn set(id: u32, ips: &[&str]) -> EndpointSet {
        EndpointSet {
            id,
            service_area: "Exchange".to_owned(),
            urls: vec![],
            ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            tcp_ports: "443".parse().unwrap(),
            udp_ports: "".parse().unwrap(),
        }
    }

    #[test]
    fn every_published_answer_passes_by_itself() {
        for instance in ["worldwide", "china", "usgov"] {
            let versions = history(instance);
            assert!(!versions.is_empty());
            for (name, sets) in versions {
                assert_eq!(vet_sets(&sets), Ok(()), "{name}");
            }
        }
        for file in ["2020-12-23", "2024-04-24", "2025-07-05", "2026-05-29"] {
            let sets = read(&format!("worldwide/worldwide-captured-{file}.json"));
            assert_eq!(vet_sets(&sets), Ok(()), "{file}");
        }
    }

    /// The prefixes of Exchange with TCP port 443 and every step between them,
    /// from 2018 to 2026.
    #[test]
    fn no_honest_step_of_the_exchange_sets_is_refused() {
        let sources = sources("\"exchange-online\", \"exchange-online-strict\"");
        let mut versions = history("worldwide");
        for file in ["2020-12-23", "2024-04-24", "2025-07-05", "2026-05-29"] {
            let sets = read(&format!("worldwide/worldwide-captured-{file}.json"));
            versions.push((file.to_owned(), sets));
        }
        let counts: Vec<_> =
            versions.iter().map(|(_, sets)| sources[0].definition.select(sets).len()).collect();
        assert_eq!(
            counts,
            [88, 87, 81, 60, 60, 60, 60, 59, 59, 45, 45, 45, 45, 45, 45, 44, 44, 34, 34, 34]
        );
        for pair in versions.windows(2) {
            let warnings =
                vet_change(&sources, Instance::Worldwide, &pair[0].1, &pair[1].1, Leniency::Strict);
            assert_eq!(warnings, Ok(vec![]), "{} to {}", pair[0].0, pair[1].0);
        }
    }

    /// The Graph sets moved more than any: 205 to 57 and 44 to 14 prefixes. With
    /// the 90 single addresses beside them only the first is refused, by a hair,
    /// and several versions lie between these two.
    #[test]
    fn one_step_of_the_graph_set_needs_an_operator() {
        let sources = sources("\"graph-notifications\"");
        // The first version has no Graph prefixes yet.
        let versions = history("worldwide").split_off(1);
        for pair in versions.windows(2) {
            let result =
                vet_change(&sources, Instance::Worldwide, &pair[0].1, &pair[1].1, Leniency::Strict);
            if pair[1].0.contains("2019022800") {
                let name = "graph-notifications".to_owned();
                let refusal = Refusal::RemovesTooMuch { name, lost: 148, held: 295 };
                assert_eq!(result, Err(refusal));
            } else {
                assert_eq!(result, Ok(vec![]), "{} to {}", pair[0].0, pair[1].0);
            }
        }
    }

    #[test]
    fn the_empty_publication_of_2018_is_refused() {
        let sources = Config::default().sources;
        let before = read("history/worldwide-2018100100.json");
        let refusal =
            vet_change(&sources, Instance::Worldwide, &before, &[], Leniency::Strict).unwrap_err();
        assert_eq!(refusal.name(), "no_prefixes");
        assert!(refusal.can_be_accepted());
        // And on a first start as well.
        assert!(vet_change(&sources, Instance::Worldwide, &[], &[], Leniency::Strict).is_err());
    }

    #[test]
    fn prefixes_that_cannot_be_right_are_named() {
        for (prefix, name) in [
            ("40.0.0.0/10", "too_wide"),
            ("2603::/27", "too_wide"),
            ("0.0.0.0/0", "not_public"),
            ("::/0", "not_public"),
            ("10.1.0.0/16", "not_public"),
            ("127.0.0.1/32", "not_public"),
            ("100.64.0.0/24", "not_public"),
            ("169.254.1.0/24", "not_public"),
            ("172.31.0.0/16", "not_public"),
            ("192.168.1.0/24", "not_public"),
            ("198.51.100.0/24", "not_public"),
            ("224.0.0.0/24", "not_public"),
            ("255.255.255.255/32", "not_public"),
            ("::1/128", "not_public"),
            ("fe80::/64", "not_public"),
            ("fd00::/48", "not_public"),
            ("ff02::/64", "not_public"),
            ("2001:db8::/48", "not_public"),
            ("2002:a00::/40", "not_public"),
            ("64:ff9b::/96", "not_public"),
            ("::ffff:40.96.0.0/110", "ipv4_mapped"),
            ("40.96.0.1/13", "host_bits"),
            ("2603:1006::1/40", "host_bits"),
        ] {
            let refusal = vet_sets(&[set(7, &["40.96.0.0/13", prefix])]).unwrap_err();
            assert_eq!(refusal.name(), name, "{prefix}");
            assert!(!refusal.can_be_accepted(), "{prefix}");
            assert!(refusal.to_string().contains("endpoint set 7"), "{refusal}");
        }
        assert_eq!(vet_sets(&[set(1, &["40.96.0.0/11", "2603::/28"])]), Ok(()));
    }

    #[test]
    fn a_loss_of_more_than_half_is_refused_and_of_more_than_a_third_is_warned_of() {
        let sources = sources("\"exchange-online\"");
        let ips: Vec<_> = (1..=20).map(|n| format!("40.{n}.0.0/16")).collect();
        let sets = |count: usize| {
            let ips: Vec<_> = ips.iter().take(count).map(String::as_str).collect();
            [set(1, &ips)]
        };
        let vet = |left| {
            vet_change(&sources, Instance::Worldwide, &sets(20), &sets(left), Leniency::Strict)
        };
        assert_eq!(vet(13), Ok(vec![]));
        assert_eq!(vet(12).unwrap().len(), 1);
        assert_eq!(vet(10).unwrap().len(), 1);
        assert_eq!(vet(9).unwrap_err().name(), "removes_too_much");
        // Another cloud's answer says nothing about this source.
        assert_eq!(
            vet_change(&sources, Instance::China, &sets(20), &[], Leniency::Strict),
            Ok(vec![])
        );
    }

    #[test]
    fn leniency_turns_refusals_into_warnings_for_each_source() {
        let sources = sources("\"exchange-online\", \"exchange-online-strict\"");
        let mut before = set(1, &["40.1.0.0/16", "40.2.0.0/16", "40.3.0.0/16"]);
        before.urls.push("outlook.office365.com".to_owned());
        let before = [before];
        // Only a third of the first source is left, and nothing of the second.
        let after = [set(1, &["40.1.0.0/16"])];
        let vet = |leniency| vet_change(&sources, Instance::Worldwide, &before, &after, leniency);
        assert_eq!(vet(Leniency::Strict).unwrap_err().name(), "removes_too_much");
        assert_eq!(vet(Leniency::Losses).unwrap_err().name(), "no_prefixes");
        assert_eq!(vet(Leniency::Accepted).unwrap().len(), 2);
    }

    #[test]
    fn merged_prefixes_are_not_lost() {
        let sources = sources("\"exchange-online\"");
        let before = [set(1, &["40.0.0.0/16", "40.1.0.0/16", "40.2.0.0/16", "2603:1006::/40"])];
        let after = [set(1, &["40.0.0.0/14", "2603:1006::/39"])];
        assert_eq!(
            vet_change(&sources, Instance::Worldwide, &before, &after, Leniency::Strict),
            Ok(vec![])
        );
    }
}

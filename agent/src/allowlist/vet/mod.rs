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
    source::{
        Definition,
        feed::{Content, FeedId},
        microsoft365::EndpointSet,
    },
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
    #[error("{origin} has the prefix {prefix}, which is absurdly wide")]
    TooWide {
        /// Who says so.
        origin: String,
        /// The prefix.
        prefix: IpNet,
    },
    /// A prefix that is not of the public internet.
    #[error("{origin} has the prefix {prefix}, which is not of the public internet")]
    NotPublic {
        /// Who says so.
        origin: String,
        /// The prefix.
        prefix: IpNet,
    },
    /// An IPv4 address in IPv6 form, which never stands in a packet.
    #[error("{origin} has the prefix {prefix}, an IPv4 address in IPv6 form")]
    Ipv4Mapped {
        /// Who says so.
        origin: String,
        /// The prefix.
        prefix: IpNet,
    },
    /// An address behind the length.
    #[error("{origin} has {prefix}, with bits set behind its length")]
    HostBits {
        /// Who says so.
        origin: String,
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
            vet_prefix(*prefix, &|| format!("endpoint set {}", set.id))?;
        }
    }
    Ok(())
}

/// Checks every prefix of a content. `private` is whether those of private
/// networks are taken.
///
/// # Errors
///
/// The first fault.
pub fn vet_content(content: &Content, private: bool) -> Result<(), Refusal> {
    vet_sets(content.sets())?;
    for entry in content.entries() {
        if !(private && is_private(entry.prefix)) {
            vet_prefix(entry.prefix, &|| entry.origin.to_string())?;
        }
    }
    Ok(())
}

/// Whether a prefix is of a network that an operator may have, with no bits
/// behind its length.
pub(super) fn is_private(prefix: IpNet) -> bool {
    prefix.trunc() == prefix && PRIVATE.iter().any(|private| private.contains(&prefix))
}

fn vet_prefix(prefix: IpNet, origin: &dyn Fn() -> String) -> Result<(), Refusal> {
    if prefix.trunc() != prefix {
        return Err(Refusal::HostBits { origin: origin(), prefix });
    }
    let widest = match prefix {
        IpNet::V4(_) => WIDEST_V4,
        IpNet::V6(v6) => {
            if v6.addr().to_ipv4_mapped().is_some() {
                return Err(Refusal::Ipv4Mapped { origin: origin(), prefix });
            }
            // 2000::/3 is all there is of global unicast (RFC 4291).
            if v6.addr().segments().first().is_none_or(|first| first >> 13 != 1) {
                return Err(Refusal::NotPublic { origin: origin(), prefix });
            }
            WIDEST_V6
        }
    };
    if NOT_PUBLIC.iter().any(|special| special.contains(&prefix) || prefix.contains(special)) {
        return Err(Refusal::NotPublic { origin: origin(), prefix });
    }
    if prefix.prefix_len() < widest {
        return Err(Refusal::TooWide { origin: origin(), prefix });
    }
    Ok(())
}

/// What may be behind a private link, and the prefixes of documentation, which
/// laboratories use.
static PRIVATE: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let texts = [
        "10.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "2001:db8::/32",
        "3fff::/20",
        "fc00::/7",
        "fe80::/10",
    ];
    texts.iter().filter_map(|text| text.parse().ok()).collect()
});

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

/// Compares, for every source behind which the feed is, what an answer leaves of
/// it with what is in force. Prefixes that are covered by wider ones are not
/// lost: Microsoft has merged 19 prefixes into fewer without giving up an
/// address. Returns warnings.
///
/// # Errors
///
/// The first source that would lose too much.
pub fn vet_change(
    sources: &[Source],
    feed: &FeedId,
    held: &Content,
    answer: &Content,
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
        if source.feed().as_ref() != Some(feed) {
            continue;
        }
        // Names may move to other addresses altogether, and honestly so.
        let leniency = match source.definition {
            Definition::Dns { .. } if leniency == Leniency::Strict => Leniency::Losses,
            _ => leniency,
        };
        let prefixes = |content: &Content| -> Vec<IpNet> {
            source.definition.take(content).iter().map(|entry| entry.prefix).collect()
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
        if source.protected && !source.definition.is_local() {
            // Nothing is lost.
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
mod tests;

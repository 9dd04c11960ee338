//! The verdict on a packet, and the words for it.
//!
//! [`Reason`], [`Action`] and [`Family`] are the one vocabulary: counter index,
//! metric label, log field, CLI output and documentation use the same names.

use core::{fmt, hint::cold_path};

use crate::{
    packet::{Address, Parsed, Then},
    table::{Lines, Table},
};

/// Why a packet got its [`Action`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Neither IPv4 nor IPv6 (ARP, LLDP, ...). Passes.
    NotIp = 0,
    /// No guard stands on its protocol, destination port and destination
    /// address. Passes.
    NotGuarded = 1,
    /// A guard stands there and accepts the source. Passes.
    Allowed = 2,
    /// A guard stands there and accepts no source that contains the address.
    /// Dropped.
    Unlisted = 3,
    /// Not the first fragment of its datagram. Passes: without its first
    /// fragment, which is judged, it cannot be reassembled.
    Fragment = 4,
    /// IP, but the header that would show the port is cut off, malformed or
    /// buried too deep. Dropped unless some guard accepts its source.
    Unparsable = 5,
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::NotIp,
        Self::NotGuarded,
        Self::Allowed,
        Self::Unlisted,
        Self::Fragment,
        Self::Unparsable,
    ];

    /// The name in metrics, logs, CLI and documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::NotGuarded => "not_guarded",
            Self::Allowed => "allowed",
            Self::Unlisted => "unlisted",
            Self::Fragment => "fragment",
            Self::Unparsable => "unparsable",
        }
    }
}

/// What happens to a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It goes on to the network stack.
    Pass = 0,
    /// It ends here.
    Drop = 1,
    /// It goes on, but would end here in enforce mode.
    WouldDrop = 2,
}

impl Action {
    /// Every action, in the order of its number.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Drop, Self::WouldDrop];

    /// The name in metrics, logs, CLI and documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::WouldDrop => "would_drop",
        }
    }
}

/// The network protocol of a packet.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Neither of the two, or not known.
    Other = 0,
    /// IPv4.
    Ipv4 = 1,
    /// IPv6.
    Ipv6 = 2,
}

impl Family {
    /// Every family, in the order of its number.
    pub const ALL: [Self; 3] = [Self::Other, Self::Ipv4, Self::Ipv6];

    /// The name in metrics, logs, CLI and documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

/// The decision on one packet: its action, the reason and the packet's family.
///
/// It is one number, the place of its counter. Every way through the parser ends in a verdict,
/// and three values to carry to where these ways meet cost the program in the kernel more
/// than to work out the number, which is a constant on each of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Verdict(u32);

#[allow(clippy::arithmetic_side_effects, reason = "three enums of a few variants")]
impl Verdict {
    /// Number of verdicts, those that never occur included.
    pub const COUNT: u32 = Action::ALL.len() as u32 * Self::OF_ACTION;
    /// Verdicts of one action.
    const OF_ACTION: u32 = Reason::ALL.len() as u32 * Family::ALL.len() as u32;

    /// The verdict with these three parts.
    #[inline(always)]
    #[must_use]
    pub const fn new(action: Action, reason: Reason, family: Family) -> Self {
        let families = Family::ALL.len() as u32;
        Self(action as u32 * Self::OF_ACTION + reason as u32 * families + family as u32)
    }

    /// Where its counter lies; below [`Verdict::COUNT`].
    #[inline(always)]
    #[must_use]
    pub const fn place(self) -> u32 {
        let Self(place) = self;
        place
    }

    /// Whether the packet passes and nobody has anything against it.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        self.place() < Self::OF_ACTION
    }

    /// What happens to the packet.
    #[inline(always)]
    #[must_use]
    pub const fn action(self) -> Action {
        match self.place() / Self::OF_ACTION {
            0 => Action::Pass,
            1 => Action::Drop,
            _ => Action::WouldDrop,
        }
    }

    /// Why.
    #[inline(always)]
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self.place() % Self::OF_ACTION / Family::ALL.len() as u32 {
            0 => Reason::NotIp,
            1 => Reason::NotGuarded,
            2 => Reason::Allowed,
            3 => Reason::Unlisted,
            4 => Reason::Fragment,
            _ => Reason::Unparsable,
        }
    }

    /// The packet's network protocol.
    #[inline(always)]
    #[must_use]
    pub const fn family(self) -> Family {
        match self.place() % Family::ALL.len() as u32 {
            0 => Family::Other,
            1 => Family::Ipv4,
            _ => Family::Ipv6,
        }
    }

    /// The same verdict with another action.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self::new(action, self.reason(), self.family())
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.action(), self.reason(), self.family()).fmt(f)
    }
}

/// Whether a verdict can occur at all: which counters are worth showing.
#[must_use]
pub const fn can_occur(action: Action, reason: Reason, family: Family) -> bool {
    let is_ip = !matches!(family, Family::Other);
    match (action, reason) {
        (Action::Pass, Reason::NotIp) => !is_ip,
        (Action::Pass, Reason::Unlisted)
        | (
            Action::Drop | Action::WouldDrop,
            Reason::NotIp | Reason::NotGuarded | Reason::Allowed | Reason::Fragment,
        ) => false,
        (Action::Pass, _) | (Action::Drop | Action::WouldDrop, Reason::Unlisted) => is_ip,
        (Action::Drop | Action::WouldDrop, Reason::Unparsable) => true,
    }
}

/// Goes on from parsing to the verdict of a table.
pub struct Judge<'a, L: ?Sized>(pub Table<'a, L>);

impl<L: Lines + ?Sized> Then for Judge<'_, L> {
    type Output = Verdict;

    #[inline(always)]
    fn then(&self, parsed: Parsed) -> Verdict {
        judge(&parsed, &self.0)
    }
}

/// Decides on a parsed packet. Total: every packet gets exactly one verdict.
#[inline(always)]
pub fn judge<L: Lines + ?Sized>(parsed: &Parsed, table: &Table<'_, L>) -> Verdict {
    let pass = |reason, family| Verdict::new(Action::Pass, reason, family);
    match *parsed {
        Parsed::NotIp => pass(Reason::NotIp, Family::Other),
        Parsed::Fragment { family } => pass(Reason::Fragment, family),
        Parsed::Portless { family } => pass(Reason::NotGuarded, family),
        Parsed::Flow { source, destination, protocol, port, .. } => {
            let family = source.family();
            let Some(accepted) = table.guard(protocol, port) else {
                return pass(Reason::NotGuarded, family);
            };
            if table.restricts_destinations() {
                cold_path();
                // A copy, so that only those who are asked about it store the address.
                let here = destination;
                if !table.is_destination(&here) {
                    return pass(Reason::NotGuarded, family);
                }
            }
            if table.sources(&source) & accepted != 0 {
                return pass(Reason::Allowed, family);
            }
            Verdict::new(table.refusal(), Reason::Unlisted, family)
        }
        Parsed::Unparsable { family, source } => {
            let accepted = source
                .is_some_and(|source| table.sources_out_of_line(&source) & table.any_guard() != 0);
            let action = if accepted { Action::Pass } else { table.refusal() };
            Verdict::new(action, Reason::Unparsable, family)
        }
    }
}

impl Address {
    /// The family that the address belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::V4(_) => Family::Ipv4,
            Self::V6(..) => Family::Ipv6,
        }
    }
}

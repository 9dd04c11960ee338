//! The verdicts, as the rows name them.

use exogate_ebpf::verdict::{Action, Family, Reason};

use super::Expected;

pub(super) const V4: Family = Family::Ipv4;
pub(super) const V6: Family = Family::Ipv6;

pub(super) const NOT_IP: Expected = (Action::Pass, Reason::NotIp, Family::Other);
/// Cut off or malformed before anything is known of it.
pub(super) const UNKNOWN: Expected = (Action::Drop, Reason::Unparsable, Family::Other);

pub(super) fn allowed(family: Family) -> Expected {
    (Action::Pass, Reason::Allowed, family)
}

pub(super) fn unlisted(family: Family) -> Expected {
    (Action::Drop, Reason::Unlisted, family)
}

pub(super) fn not_guarded(family: Family) -> Expected {
    (Action::Pass, Reason::NotGuarded, family)
}

pub(super) fn later_fragment(family: Family) -> Expected {
    (Action::Pass, Reason::Fragment, family)
}

/// Unparsable, and no guard accepts its source, if that can be seen at all.
pub(super) fn unparsable(family: Family) -> Expected {
    (Action::Drop, Reason::Unparsable, family)
}

/// Unparsable, but some guard accepts its source.
pub(super) fn unparsable_from_a_source(family: Family) -> Expected {
    (Action::Pass, Reason::Unparsable, family)
}

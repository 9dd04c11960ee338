//! What is promised, held against what was found.

use exogate_tests::lab::Family;

use super::{AZURE, Row};
use crate::{
    rig::{Order, Share},
    support::{Report, middle},
};

/// exogate's packets per second of CPU, against a peer's: at least so many times.
struct Target {
    peer: &'static str,
    share: Share,
    prefixes: usize,
    /// IPv4, IPv6.
    least: [f64; 2],
}

const fn dropped(peer: &'static str, prefixes: usize, least: [f64; 2]) -> Target {
    Target { peer, share: Share::Dropped, prefixes, least }
}

const TARGETS: &[Target] = &[
    dropped("headers, drop", 34, [0.80, 0.70]),
    dropped("xdp-filter", 34, [1.7, 1.4]),
    dropped("LPM tries", 34, [1.3, 1.1]),
    dropped("LPM tries", 54_000, [6.0, 3.0]),
    dropped("LPM tries", AZURE, [6.0, 3.0]),
    dropped("LPM tries", 1_000_000, [5.0, 4.0]),
    dropped("nft netdev ingress", 34, [6.0, 6.0]),
    dropped("nft netdev ingress", 54_000, [15.0, 15.0]),
    dropped("nft netdev ingress", AZURE, [15.0, 15.0]),
    Target { peer: "no filter", share: Share::Passed, prefixes: 34, least: [0.95, 0.95] },
];

/// Adds each target that there are rows for to the report.
pub fn judge(report: &mut Report, rows: &[Row]) {
    let of = |name: &str, prefixes: usize, family: Family, share: Share| {
        let row = rows.iter().find(|row| {
            (row.contender, row.kind.prefixes, row.family) == (name, prefixes, family)
                && (row.kind.share, row.kind.order) == (share, Order::Random)
        })?;
        Some(middle(&row.nanoseconds))
    };
    let mut judge = |wanted: String, found: Option<f64>, least: f64| {
        if let Some(found) = found {
            let wanted = format!("{wanted}: at least {least:.2} times");
            report.target(&wanted, format!("{found:.2}"), found >= least);
        }
    };
    for (family, number) in [(Family::V4, 0), (Family::V6, 1)] {
        let name = if number == 0 { "IPv4" } else { "IPv6" };
        for target in TARGETS {
            let mine = of("exogate", target.prefixes, family, target.share);
            let peer = of(target.peer, target.prefixes, family, target.share);
            judge(
                format!(
                    "{name}, {} prefixes, {}, against {}",
                    target.prefixes,
                    target.share.name(),
                    target.peer
                ),
                mine.zip(peer).map(|(mine, peer)| peer / mine),
                target.least[number],
            );
        }
        let generic = of("exogate, generic", 34, family, Share::Dropped);
        let nft = of("nft netdev ingress", 34, family, Share::Dropped);
        judge(
            format!("{name}, 34 prefixes, dropped, generic mode against nft netdev ingress"),
            generic.zip(nft).map(|(generic, nft)| nft / generic),
            1.7,
        );
        let few = of("exogate", 34, family, Share::Dropped);
        for prefixes in [54_000, AZURE] {
            let many = of("exogate", prefixes, family, Share::Dropped);
            judge(
                format!("{name}, {prefixes} prefixes against 34"),
                few.zip(many).map(|(few, many)| few / many),
                0.65,
            );
        }
    }
}

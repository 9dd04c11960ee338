//! What is promised, held against what was found.
//!
//! A ratio is taken within each round, in which all contenders take their turn within a
//! moment, and its median counts: from round to round the machine's pace changes by more than
//! the contenders differ. Only lists of different length are compared by medians of their own,
//! since they have no round in common.
//!
//! A ratio of whole packets cannot exceed that of a program that does nothing, however short
//! the own one is. So each target has beside it what such a program reaches in the same run,
//! by the figures of `empty drop` or, where packets pass, of `pass, no look`.

use exogate_tests::lab::Family;

use super::{AZURE, Row};
use crate::{
    rig::{Order, Share, family_name},
    support::{Report, beside, middle, paired, thousands},
};

/// Packets per second of CPU of one program, against another's: at least so many times.
struct Target {
    mine: &'static str,
    peer: &'static str,
    share: Share,
    prefixes: usize,
    /// IPv4, IPv6.
    least: [f64; 2],
}

const fn dropped(peer: &'static str, prefixes: usize, least: [f64; 2]) -> Target {
    Target { mine: "exogate", peer, share: Share::Dropped, prefixes, least }
}

const fn passed(peer: &'static str, least: f64) -> Target {
    let least = [least, least];
    Target { mine: "exogate", peer, share: Share::Passed, prefixes: 34, least }
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
    passed("no filter", 0.95),
    passed("pass, no look", 0.95),
    Target { mine: "exogate, generic", ..dropped("nft netdev ingress", 34, [1.7, 1.7]) },
    dropped("exogate, events unread", 34, [0.97, 0.97]),
];

/// The least of the packets per second with 34 prefixes that are left with more.
const LEFT: f64 = 0.65;

/// Adds each target that there are rows for to the report.
pub fn judge(report: &mut Report, rows: &[Row]) {
    for family in Family::ALL {
        let found = Found { rows, family };
        for target in TARGETS {
            found.judge(report, target);
        }
        for prefixes in [54_000, AZURE] {
            found.judge_length(report, prefixes);
        }
    }
}

/// What was found for a family, with random sources.
struct Found<'a> {
    rows: &'a [Row],
    family: Family,
}

impl Found<'_> {
    /// What a packet took, by round.
    fn of(&self, contender: &str, prefixes: usize, share: Share) -> Option<&[f64]> {
        let row = self.rows.iter().find(|row| {
            (row.contender, row.family) == (contender, self.family)
                && (row.kind.prefixes, row.kind.share) == (prefixes, share)
                && row.kind.order == Order::Random
        })?;
        Some(&row.nanoseconds)
    }

    fn judge(&self, report: &mut Report, target: &Target) {
        let Target { mine, peer, share, prefixes, least } = *target;
        let of = |contender| self.of(contender, prefixes, share);
        let Some((mine_took, peer_took)) = of(mine).zip(of(peer)) else { return };
        let idle = match (mine, peer, share) {
            // There is none in generic mode, nor one with events.
            ("exogate, generic", ..) | (_, "exogate, events unread", _) => None,
            (.., Share::Passed) => of("pass, no look"),
            _ => of("empty drop"),
        };
        let times = |took| paired(peer_took, took, |peer, took| peer / took);
        let who = if mine == "exogate" { String::new() } else { format!("{mine}, ") };
        let least = self.one(least);
        let wanted = format!(
            "{}, {} prefixes, {}: {who}against {peer} at least {least:.2} times",
            family_name(self.family),
            thousands(prefixes),
            share.name(),
        );
        add(report, &wanted, &times(mine_took), idle.map(times), least);
    }

    /// A long list against the short one.
    fn judge_length(&self, report: &mut Report, prefixes: usize) {
        let ratio = |contender: &str| {
            let of = |prefixes| self.of(contender, prefixes, Share::Dropped).map(middle);
            of(34).zip(of(prefixes)).map(|(few, many)| vec![few / many])
        };
        let Some(found) = ratio("exogate") else { return };
        let wanted = format!(
            "{}, {} prefixes against 34, by medians: at least {LEFT:.2} times",
            family_name(self.family),
            thousands(prefixes),
        );
        add(report, &wanted, &found, ratio("empty drop"), LEFT);
    }

    fn one(&self, [v4, v6]: [f64; 2]) -> f64 {
        match self.family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

fn add(report: &mut Report, wanted: &str, found: &[f64], limit: Option<Vec<f64>>, least: f64) {
    let limit = limit.map(|limit| beside(&limit, least));
    report.limited(wanted, beside(found, least), limit, middle(found) >= least);
}

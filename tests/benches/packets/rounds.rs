//! What was measured in each round, for those who want to compare otherwise.

use std::fmt::Write as _;

use super::Row;
use crate::rig::family_name;

/// A line for each round of each contender.
pub fn csv(rows: &[Row]) -> String {
    let mut csv = String::from("prefixes,family,packets,sources,contender,round,nanoseconds\n");
    for Row { contender, kind, family, nanoseconds } in rows {
        let (family, share, order) = (family_name(*family), kind.share.name(), kind.order.name());
        for (round, nanoseconds) in nanoseconds.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = writeln!(
                csv,
                "{},{family},{share},{order},\"{contender}\",{round},{nanoseconds:.2}",
                kind.prefixes
            );
        }
    }
    csv
}

//! Packets per second, by verdict, over the last minutes.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use crate::admin::api::Status;

/// Rates that are remembered of each verdict.
const REMEMBERED: usize = 600;

/// An action and a reason.
pub(super) type Verdict = (String, String);

/// The rates of all interfaces together.
#[derive(Default)]
pub(super) struct Rates {
    last: Option<(Instant, BTreeMap<Verdict, u64>)>,
    rates: BTreeMap<Verdict, VecDeque<u64>>,
}

impl Rates {
    /// Takes the counters of a moment.
    pub(super) fn add(&mut self, status: &Status, now: Instant) {
        let mut totals: BTreeMap<Verdict, u64> = BTreeMap::new();
        for count in status.interfaces.iter().flat_map(|interface| &interface.packets) {
            let total = totals.entry((count.action.clone(), count.reason.clone())).or_default();
            *total = total.saturating_add(count.packets);
        }
        if let Some((then, before)) = &self.last {
            let seconds = now.duration_since(*then).as_secs_f64();
            for (verdict, total) in &totals {
                // A counter that began anew counts from 0.
                let before = before.get(verdict).filter(|before| *before <= total).unwrap_or(&0);
                let rates = self.rates.entry(verdict.clone()).or_default();
                if rates.len() >= REMEMBERED {
                    rates.pop_front();
                }
                rates.push_back(per_second(total.saturating_sub(*before), seconds));
            }
        }
        self.last = Some((now, totals));
    }

    /// Each verdict that occurred, its present rate, and its latest rates, oldest first.
    pub(super) fn latest(&self, most: usize) -> impl Iterator<Item = (&Verdict, u64, Vec<u64>)> {
        self.rates.iter().map(move |(verdict, rates)| {
            let skipped = rates.len().saturating_sub(most);
            let latest = rates.iter().skip(skipped).copied().collect();
            (verdict, rates.back().copied().unwrap_or(0), latest)
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a picture needs no more than 52 bits")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
fn per_second(packets: u64, seconds: f64) -> u64 {
    if seconds > 0.0 { (packets as f64 / seconds).round() as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_a_second() {
        assert_eq!(per_second(100, 2.0), 50);
        assert_eq!(per_second(1, 0.0), 0);
        assert_eq!(per_second(u64::MAX, 1e-9), u64::MAX);
    }
}

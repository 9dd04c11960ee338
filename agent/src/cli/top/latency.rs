//! How long the relay's answers take, from the agent's own histograms.

use std::collections::{BTreeMap, VecDeque};

/// Pages that are remembered: the latencies are those of the time between the first and the
/// last of them.
const REMEMBERED: usize = 60;
const METRIC: &str = "exogate_relay_answer_duration_seconds_bucket{";

/// Cumulative counts by upper bound in seconds, ascending.
type Buckets = Vec<(f64, u64)>;

/// The latencies of all routes.
#[derive(Default)]
pub(super) struct Latencies(VecDeque<BTreeMap<String, Buckets>>);

impl Latencies {
    /// Takes a page of metrics.
    pub(super) fn add(&mut self, page: &str) {
        let Self(pages) = self;
        let mut routes: BTreeMap<String, Buckets> = BTreeMap::new();
        for (route, bound, count) in page.lines().filter_map(parse) {
            routes.entry(route.to_owned()).or_default().push((bound, count));
        }
        if pages.len() >= REMEMBERED {
            pages.pop_front();
        }
        pages.push_back(routes);
    }

    /// What a share of a route's answers took at most; nothing if there was none.
    pub(super) fn quantile(&self, route: &str, share: f64) -> Option<String> {
        let Self(pages) = self;
        let (first, last) = (pages.front()?.get(route), pages.back()?.get(route)?);
        let before =
            |index: usize| first.and_then(|first| first.get(index)).map_or(0, |(_, count)| *count);
        let counts: Vec<_> = last
            .iter()
            .enumerate()
            .map(|(index, (bound, count))| (*bound, count.saturating_sub(before(index))))
            .collect();
        quantile(&counts, share)
    }
}

/// `exogate_…_bucket{route="graph",le="0.005"} 7`, its labels in any order.
fn parse(line: &str) -> Option<(&str, f64, u64)> {
    let (labels, value) = line.strip_prefix(METRIC)?.split_once("} ")?;
    let label = |name: &str| {
        let found = |label: &&str| label.split_once('=').is_some_and(|(key, _)| key == name);
        let (_, value) = labels.split(',').find(found)?.split_once('=')?;
        Some(value.trim_matches('"'))
    };
    let bound = match label("le")? {
        "+Inf" => f64::INFINITY,
        bound => bound.parse().ok()?,
    };
    Some((label("route")?, bound, value.trim().parse().ok()?))
}

#[expect(clippy::cast_precision_loss, reason = "counts of a minute")]
fn quantile(counts: &[(f64, u64)], share: f64) -> Option<String> {
    let (_, all) = counts.last().filter(|(_, all)| *all > 0)?;
    let wanted = *all as f64 * share;
    let (bound, _) = counts.iter().find(|(_, count)| *count as f64 >= wanted)?;
    Some(match bound {
        bound if bound.is_infinite() => "over 25 s".to_owned(),
        bound if *bound < 1.0 => format!("{} ms", bound * 1000.0),
        bound => format!("{bound} s"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counts: [u64; 3]) -> String {
        let [fast, slow, all] = counts;
        let line = |bound: &str, count| format!("{METRIC}le=\"{bound}\",route=\"graph\"}} {count}");
        [line("0.005", fast), line("3", slow), line("+Inf", all)].join("\n")
    }

    #[test]
    fn latencies_are_those_since_the_first_page() {
        let mut latencies = Latencies::default();
        latencies.add(&page([1000, 1000, 1000]));
        assert_eq!(latencies.quantile("graph", 0.5), None, "nothing was answered since");
        latencies.add(&page([1090, 1099, 1100]));
        assert_eq!(latencies.quantile("graph", 0.5).as_deref(), Some("5 ms"));
        assert_eq!(latencies.quantile("graph", 0.95).as_deref(), Some("3 s"));
        assert_eq!(latencies.quantile("graph", 1.0).as_deref(), Some("over 25 s"));
        assert_eq!(latencies.quantile("ews", 0.5), None);
    }
}

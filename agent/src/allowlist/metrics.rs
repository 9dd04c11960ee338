//! Metrics of the allow-list and its feeds.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Mutex,
};

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
    proto::MetricFamily,
};

use super::{Status, held::midnight};
use crate::{
    config::Mode,
    source::{feed::FeedId, graph},
};

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollResult {
    /// The version in force is the latest.
    Unchanged,
    /// Another version was applied.
    Applied,
    /// Another version was not applied, because an operator holds updates back or
    /// only wanted to see it.
    Offered,
    /// The answer was refused.
    Refused,
    /// There was no usable answer, or it could not be put in force.
    Failed,
}

impl PollResult {
    const ALL: [Self; 5] =
        [Self::Unchanged, Self::Applied, Self::Offered, Self::Refused, Self::Failed];

    const fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Applied => "applied",
            Self::Offered => "offered",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The metrics.
pub struct Metrics {
    version: Series,
    instances: Polls,
    sources: Polls,
    hold: IntGauge,
    mode: IntGaugeVec,
    temporary: IntGauge,
    offers: Series,
    history_failures: IntCounter,
    prefixes: Series,
    pending: Series,
    info: Series,
    publish_failures: IntCounter,
    save_failures: IntCounter,
}

impl Metrics {
    /// Declares the metrics.
    ///
    /// # Errors
    ///
    /// If one of the names is taken.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let graph_addresses = register(
            registry,
            IntGauge::new(
                "exogate_graph_addresses_timestamp_seconds",
                "When Microsoft published the built-in addresses of Graph notifications.",
            )?,
        )?;
        if let Some(published) = midnight(graph::published()) {
            graph_addresses.set(published.as_second());
        }
        Ok(Self {
            version: Series::register(
                registry,
                "exogate_feed_version",
                "Version of the endpoint sets in force, YYYYMMDDNN; absent if unknown.",
                &["feed"],
            )?,
            instances: Polls::register(
                registry,
                "exogate_feed",
                "feed",
                ["the web service", "the endpoint sets"],
            )?,
            sources: Polls::register(
                registry,
                "exogate_source",
                "source",
                ["the feed of a source", "the content of a source"],
            )?,
            mode: register(
                registry,
                IntGaugeVec::new(
                    Opts::new(
                        "exogate_mode",
                        "1 for what happens to refused packets: monitor (they pass) or enforce.",
                    ),
                    &["mode"],
                )?,
            )?,
            hold: register(
                registry,
                IntGauge::new(
                    "exogate_feed_hold",
                    "1 while an operator holds back all updates of feeds.",
                )?,
            )?,
            temporary: register(
                registry,
                IntGauge::new(
                    "exogate_allowlist_temporary_entries",
                    "Entries in force that an operator let pass for a while.",
                )?,
            )?,
            offers: Series::register(
                registry,
                "exogate_feed_offered_changes",
                "Prefixes that would come or go, by feed, because what it says was refused or \
                 held back; absent if nothing was.",
                &["feed", "change"],
            )?,
            history_failures: counter(
                "exogate_allowlist_history_failures_total",
                "Records that could not be written to the history in the state directory.",
            )?,
            prefixes: Series::register(
                registry,
                "exogate_allowlist_prefixes",
                "Prefixes in force by source and address family.",
                &["source", "family"],
            )?,
            pending: Series::register(
                registry,
                "exogate_allowlist_pending_removals",
                "Prefixes in force that are no longer published, by source.",
                &["source"],
            )?,
            info: Series::register(
                registry,
                "exogate_allowlist_info",
                "Always 1; the label is the hash of the list in force.",
                &["hash"],
            )?,
            publish_failures: counter(
                "exogate_allowlist_publish_failures_total",
                "Lists that could not be put in force.",
            )?,
            save_failures: counter(
                "exogate_allowlist_save_failures_total",
                "Lists that are in force but could not be written to the state directory.",
            )?,
        })
    }

    pub(super) fn polled(&self, id: &FeedId, result: PollResult) {
        self.of(id).polls.with_label_values(&[&id.to_string(), result.name()]).inc();
    }

    pub(super) fn failed(&self, id: &FeedId, reason: &str) {
        self.of(id).failures.with_label_values(&[id.to_string().as_str(), reason]).inc();
    }

    pub(super) fn refused(&self, id: &FeedId, reason: &str) {
        self.of(id).refusals.with_label_values(&[id.to_string().as_str(), reason]).inc();
    }

    const fn of(&self, id: &FeedId) -> &Polls {
        match id {
            FeedId::Instance(_) => &self.instances,
            FeedId::Source(_) => &self.sources,
        }
    }

    pub(super) fn history_failed(&self) {
        self.history_failures.inc();
    }

    pub(super) fn publish_failed(&self) {
        self.publish_failures.inc();
    }

    pub(super) fn save_failed(&self) {
        self.save_failures.inc();
    }

    /// Shows another status.
    pub(super) fn show(&self, status: &Status) {
        let feeds = || status.feeds.values();
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.version.show(feeds().filter_map(|feed| {
            let version = i64::try_from(feed.revision.as_ref()?.version()?.number()).ok()?;
            Some((vec![feed.id.to_string()], version))
        }));
        for (polls, of_instances) in [(&self.instances, true), (&self.sources, false)] {
            let feeds =
                || feeds().filter(|feed| matches!(feed.id, FeedId::Instance(_)) == of_instances);
            polls.keep(&feeds().map(|feed| feed.id.to_string()).collect());
            for feed in feeds() {
                // An increase is seen only from a series that is there before it.
                for result in PollResult::ALL {
                    polls.polls.with_label_values(&[&feed.id.to_string(), result.name()]);
                }
            }
            polls.interval.show(feeds().map(|feed| {
                (
                    vec![feed.id.to_string()],
                    i64::try_from(feed.interval.as_secs()).unwrap_or(i64::MAX),
                )
            }));
            polls.last_success.show(feeds().filter_map(|feed| {
                Some((vec![feed.id.to_string()], feed.last_success?.as_second()))
            }));
            polls.list_time.show(feeds().filter_map(|feed| {
                let labels = vec![feed.id.to_string(), feed.provenance.name().to_owned()];
                Some((labels, feed.provenance.time()?.as_second()))
            }));
        }
        self.hold.set(status.hold.into());
        for mode in [Mode::Monitor, Mode::Enforce] {
            self.mode.with_label_values(&[mode.name()]).set((status.mode == mode).into());
        }
        self.temporary.set(count(status.temporary.len()));
        self.offers.show(status.offers.iter().flat_map(|(id, offer)| {
            [("added", &offer.added), ("removed", &offer.removed)].map(|(change, prefixes)| {
                (vec![id.to_string(), change.to_owned()], count(prefixes.len()))
            })
        }));
        self.info.show([(vec![status.list.hash().to_owned()], 1)].into_iter());
        self.prefixes.show(status.list.sources().iter().flat_map(|source| {
            let (v4, v6) = source.count();
            [("ipv4", v4), ("ipv6", v6)].map(|(family, number)| {
                (vec![source.name.clone(), family.to_owned()], count(number))
            })
        }));
        self.pending.show(status.list.sources().iter().map(|source| {
            let pending = feeds()
                .flat_map(|feed| &feed.pending_removals)
                .filter(|pending| pending.source == source.name);
            (vec![source.name.clone()], count(pending.count()))
        }));
    }
}

/// What is counted of every feed.
struct Polls {
    /// What the name of a feed is behind.
    label: String,
    interval: Series,
    last_success: Series,
    list_time: Series,
    polls: IntCounterVec,
    failures: IntCounterVec,
    refusals: IntCounterVec,
}

impl Polls {
    /// `of` names what is asked and what it gives.
    fn register(
        registry: &Registry,
        prefix: &str,
        label: &str,
        [of, content]: [&str; 2],
    ) -> Result<Self, prometheus::Error> {
        let series = |name: &str, help: String, labels: &[&str]| {
            Series::register(registry, &format!("{prefix}_{name}"), &help, labels)
        };
        let counters = |name: &str, help: String, second: &str| {
            let options = Opts::new(format!("{prefix}_{name}"), help);
            register(registry, IntCounterVec::new(options, &[label, second])?)
        };
        Ok(Self {
            label: label.to_owned(),
            interval: series(
                "interval_seconds",
                format!("Time between polls of {of} while they succeed."),
                &[label],
            )?,
            last_success: series(
                "last_success_timestamp_seconds",
                format!("When {of} last gave a usable answer to this process."),
                &[label],
            )?,
            list_time: series(
                "list_timestamp_seconds",
                format!("When {content} in force was applied, or captured if built in."),
                &[label, "provenance"],
            )?,
            polls: counters(
                "polls_total",
                format!("Polls of {of} by result: unchanged, applied, offered, refused, failed."),
                "result",
            )?,
            failures: counters(
                "failures_total",
                format!("Polls of {of} without a usable answer by reason."),
                "reason",
            )?,
            refusals: counters(
                "refusals_total",
                format!("Answers of {of} that were refused by reason; the list in force stays."),
                "reason",
            )?,
        })
    }

    /// Lets go of the counters of all other feeds.
    fn keep(&self, feeds: &BTreeSet<String>) {
        for counters in [&self.polls, &self.failures, &self.refusals] {
            let families = counters.collect();
            for metric in families.iter().flat_map(MetricFamily::get_metric) {
                let labels: HashMap<&str, &str> =
                    metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                if labels.get(&*self.label).is_some_and(|feed| !feeds.contains(*feed)) {
                    // It is there, or it is gone already.
                    let _ = counters.remove(&labels);
                }
            }
        }
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// Gauges of which those that no longer apply disappear, without a moment in
/// which the others are missing.
struct Series {
    gauges: IntGaugeVec,
    shown: Mutex<BTreeSet<Vec<String>>>,
}

impl Series {
    fn register(
        registry: &Registry,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<Self, prometheus::Error> {
        let gauges = register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)?;
        Ok(Self { gauges, shown: Mutex::default() })
    }

    fn show(&self, values: impl Iterator<Item = (Vec<String>, i64)>) {
        let mut now = BTreeSet::new();
        for (labels, value) in values {
            self.gauges.with_label_values(&labels).set(value);
            now.insert(labels);
        }
        let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for labels in shown.difference(&now) {
            // It is there, or it is gone already.
            let _ = self.gauges.remove_label_values(labels);
        }
        *shown = now;
    }
}

//! Metrics of the allow-list and its feeds.

use std::{collections::BTreeSet, sync::Mutex};

use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector,
};

use super::{Status, held::midnight};
use crate::source::{graph, microsoft365::Instance};

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollResult {
    /// The version in force is the latest.
    Unchanged,
    /// Another version was applied.
    Applied,
    /// The answer was refused.
    Refused,
    /// There was no usable answer, or it could not be put in force.
    Failed,
}

impl PollResult {
    const fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// The metrics.
pub struct Metrics {
    version: Series,
    last_success: Series,
    list_time: Series,
    polls: IntCounterVec,
    failures: IntCounterVec,
    refusals: IntCounterVec,
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
        let counters = |name, help, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
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
                &["instance"],
            )?,
            last_success: Series::register(
                registry,
                "exogate_feed_last_success_timestamp_seconds",
                "When the web service last gave a usable answer to this process.",
                &["instance"],
            )?,
            list_time: Series::register(
                registry,
                "exogate_feed_list_timestamp_seconds",
                "When the endpoint sets in force were applied, or captured if built in.",
                &["instance", "provenance"],
            )?,
            polls: counters(
                "exogate_feed_polls_total",
                "Polls of the web service by result: unchanged, applied, refused, failed.",
                &["instance", "result"],
            )?,
            failures: counters(
                "exogate_feed_failures_total",
                "Polls without a usable answer by reason.",
                &["instance", "reason"],
            )?,
            refusals: counters(
                "exogate_feed_refusals_total",
                "Answers that were refused by reason; the list in force stays.",
                &["instance", "reason"],
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

    pub(super) fn polled(&self, instance: Instance, result: PollResult) {
        self.polls.with_label_values(&[instance.name(), result.name()]).inc();
    }

    pub(super) fn failed(&self, instance: Instance, reason: &str) {
        self.failures.with_label_values(&[instance.name(), reason]).inc();
    }

    pub(super) fn refused(&self, instance: Instance, reason: &str) {
        self.refusals.with_label_values(&[instance.name(), reason]).inc();
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
        let name = |instance: Instance| instance.name().to_owned();
        self.version.show(feeds().filter_map(|feed| {
            let version = i64::try_from(feed.version?.number()).ok()?;
            Some((vec![name(feed.instance)], version))
        }));
        self.last_success.show(
            feeds().filter_map(|feed| {
                Some((vec![name(feed.instance)], feed.last_success?.as_second()))
            }),
        );
        self.list_time.show(feeds().filter_map(|feed| {
            let labels = vec![name(feed.instance), feed.provenance.name().to_owned()];
            Some((labels, feed.provenance.time()?.as_second()))
        }));
        self.info.show([(vec![status.list.hash().to_owned()], 1)].into_iter());
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
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

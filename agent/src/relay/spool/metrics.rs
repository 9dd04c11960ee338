//! Metrics of the spool, whichever store it is.

use std::{sync::Arc, time::Instant};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{Appended, Error, Spool};

/// What a store counts while it works.
#[derive(Clone)]
pub struct Metrics {
    appends: IntCounterVec,
    stored: IntCounter,
    append_seconds: Histogram,
    commits: IntCounter,
}

impl Metrics {
    /// Registers what a store counts.
    ///
    /// # Errors
    ///
    /// If a name is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let appends = IntCounterVec::new(
            Opts::new(
                "exogate_spool_appends_total",
                "Appends by result: stored, duplicate, full, failed or closed.",
            ),
            &["result"],
        )?;
        for result in ["stored", "duplicate", "full", "failed", "closed"] {
            appends.with_label_values(&[result]);
        }
        let stored = appends.with_label_values(&["stored"]);
        let append_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "exogate_spool_append_duration_seconds",
                "Time until an append was durable, or refused.",
            )
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
        )?;
        let commits = IntCounter::new(
            "exogate_spool_commits_total",
            "Times that what had gathered was made durable, together.",
        )?;
        registry.register(Box::new(appends.clone()))?;
        registry.register(Box::new(append_seconds.clone()))?;
        registry.register(Box::new(commits.clone()))?;
        Ok(Self { appends, stored, append_seconds, commits })
    }

    /// An append that began then has ended.
    pub fn appended(&self, begun: Instant, result: &Result<Appended, Error>) {
        self.append_seconds.observe(begun.elapsed().as_secs_f64());
        match result {
            Ok(Appended::Stored(_)) => self.stored.inc(),
            Ok(Appended::Duplicate) => self.appends.with_label_values(&["duplicate"]).inc(),
            Err(error) => self.appends.with_label_values(&[error.name()]).inc(),
        }
    }

    /// What had gathered was made durable.
    pub fn committed(&self) {
        self.commits.inc();
    }
}

/// Registers what waits in a spool, read at each scrape, and its limit.
///
/// # Errors
///
/// If a name is taken.
pub fn register_depth(
    registry: &Registry,
    spool: Arc<dyn Spool>,
    max_bytes: u64,
) -> prometheus::Result<()> {
    registry.register(Box::new(Waiting::new(spool, max_bytes)?))
}

/// Reads the depth at each scrape.
struct Waiting {
    spool: Arc<dyn Spool>,
    records: IntGaugeVec,
    bytes: IntGaugeVec,
    oldest: IntGaugeVec,
    dead: IntGaugeVec,
    taken: IntGauge,
    max_bytes: IntGauge,
}

impl Waiting {
    fn new(spool: Arc<dyn Spool>, max_bytes: u64) -> prometheus::Result<Self> {
        let by_route = |name, help| IntGaugeVec::new(Opts::new(name, help), &["route"]);
        let limit = IntGauge::new(
            "exogate_spool_max_bytes",
            "Bytes of bodies that may wait, dead letters included; the option spool.max_size.",
        )?;
        limit.set(number(max_bytes));
        Ok(Self {
            spool,
            records: by_route("exogate_spool_records", "Records that wait for delivery.")?,
            bytes: by_route(
                "exogate_spool_bytes",
                "Bytes of the bodies that wait for delivery; dead letters are not among them.",
            )?,
            oldest: by_route(
                "exogate_spool_oldest_timestamp_seconds",
                "When the oldest record that waits was accepted; no series if none waits.",
            )?,
            dead: by_route("exogate_spool_dead_letters", "Dead letters that are kept.")?,
            taken: IntGauge::new(
                "exogate_spool_taken_bytes",
                "Bytes of all bodies that are kept, dead letters included.",
            )?,
            max_bytes: limit,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 6] {
        [&self.records, &self.bytes, &self.oldest, &self.dead, &self.taken, &self.max_bytes]
    }
}

impl Collector for Waiting {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A route that is gone leaves no series behind.
        for gauge in [&self.records, &self.bytes, &self.oldest, &self.dead] {
            gauge.reset();
        }
        self.taken.set(number(self.spool.taken()));
        for (route, depth) in self.spool.depth() {
            let route = [route.as_str()];
            self.records.with_label_values(&route).set(number(depth.records));
            self.bytes.with_label_values(&route).set(number(depth.bytes));
            self.dead.with_label_values(&route).set(number(depth.dead));
            if let Some(oldest) = depth.oldest {
                self.oldest.with_label_values(&route).set(oldest.as_second());
            }
        }
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

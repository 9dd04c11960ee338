//! What is counted about requests, by route.
//!
//! Every metric of a route is looked up once, when the relay starts, because a
//! look-up by label takes a lock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hyper::StatusCode;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::relay::{silence::Silence, slow::SlowAnswers};

/// The label of requests that no route takes.
const NO_ROUTE: &str = "none";

/// The metrics of all routes.
pub(in crate::relay) struct Metrics {
    answers: IntCounterVec,
    durations: HistogramVec,
    refused: IntCounterVec,
    discarded: IntCounterVec,
    notifications: IntCounterVec,
    /// Requests that no route takes, or that are no sound requests.
    pub(in crate::relay) unrouted: RouteMetrics,
}

/// The metrics of a route.
#[derive(Clone)]
pub(in crate::relay) struct RouteMetrics {
    route: String,
    /// Answers by class: 1xx to 5xx.
    classes: [IntCounter; 5],
    duration: Histogram,
    refused: IntCounterVec,
    discarded: IntCounterVec,
    /// Notifications that were made durable.
    pub(in crate::relay) stored: IntCounter,
    /// Those that were durable already.
    pub(in crate::relay) duplicates: IntCounter,
    /// Those that the upstream answered while the sender waited.
    pub(in crate::relay) passed: IntCounter,
}

/// What a collector looks at for one route.
pub(in crate::relay) struct Watched {
    pub(in crate::relay) route: String,
    pub(in crate::relay) silence: Arc<Silence>,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    ///
    /// If a name is taken.
    pub(in crate::relay) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let answers = IntCounterVec::new(
            Opts::new(
                "exogate_relay_answers_total",
                "Answers of the relay by route and class: 2xx, 4xx, 5xx. Route none: requests that no route takes.",
            ),
            &["route", "class"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "exogate_relay_answer_duration_seconds",
                "Time from a request's head to the answer. Graph calls more than 3 s slow and more than 10 s too slow.",
            )
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 3.0, 10.0, 25.0]),
            &["route"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "exogate_relay_refused_total",
                "Requests that were refused before anything was stored or forwarded, by route and reason.",
            ),
            &["route", "reason"],
        )?;
        let discarded = IntCounterVec::new(
            Opts::new(
                "exogate_relay_discarded_total",
                "Items of Graph notifications that failed a check: answered 202 and discarded, by route and reason.",
            ),
            &["route", "reason"],
        )?;
        let notifications = IntCounterVec::new(
            Opts::new(
                "exogate_relay_notifications_total",
                "Notifications accepted, by route and outcome: stored, duplicate (stored before), passed (answered by the upstream).",
            ),
            &["route", "outcome"],
        )?;
        for vec in [&answers, &refused, &discarded, &notifications] {
            registry.register(Box::new(vec.clone()))?;
        }
        registry.register(Box::new(durations.clone()))?;
        let unrouted =
            RouteMetrics::new(NO_ROUTE, &answers, &durations, &refused, &discarded, &notifications);
        Ok(Self { answers, durations, refused, discarded, notifications, unrouted })
    }

    /// The metrics of a route.
    #[must_use]
    pub(in crate::relay) fn of(&self, route: &str) -> RouteMetrics {
        let Self { answers, durations, refused, discarded, notifications, .. } = self;
        RouteMetrics::new(route, answers, durations, refused, discarded, notifications)
    }
}

impl RouteMetrics {
    fn new(
        route: &str,
        answers: &IntCounterVec,
        durations: &HistogramVec,
        refused: &IntCounterVec,
        discarded: &IntCounterVec,
        notifications: &IntCounterVec,
    ) -> Self {
        let class = |class| answers.with_label_values(&[route, class]);
        let outcome = |outcome| notifications.with_label_values(&[route, outcome]);
        Self {
            route: route.to_owned(),
            classes: ["1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            duration: durations.with_label_values(&[route]),
            refused: refused.clone(),
            discarded: discarded.clone(),
            stored: outcome("stored"),
            duplicates: outcome("duplicate"),
            passed: outcome("passed"),
        }
    }

    /// Counts an answer.
    pub(in crate::relay) fn answered(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16()).checked_div(100).and_then(|n| n.checked_sub(1));
        if let Some(counter) = class.and_then(|class| self.classes.get(class)) {
            counter.inc();
        }
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a request that was refused.
    pub(in crate::relay) fn refuse(&self, reason: &str) {
        self.refused.with_label_values(&[&self.route, reason]).inc();
    }

    /// Counts items that were discarded.
    pub(in crate::relay) fn discard(&self, reason: &str, count: u64) {
        self.discarded.with_label_values(&[&self.route, reason]).inc_by(count);
    }
}

/// Reads at each scrape what changes by time alone.
pub(in crate::relay) struct Clocked {
    watched: Vec<Watched>,
    endpoints: BTreeMap<String, Arc<SlowAnswers>>,
    last: IntGaugeVec,
    subscriptions: IntGaugeVec,
    silent: IntGaugeVec,
    slow: GaugeVec,
    only_cloud_ews: IntGauge,
}

impl Clocked {
    /// `only_cloud_ews`: every notification comes by EWS from Exchange Online, which
    /// ends on 2027-04-01.
    pub(in crate::relay) fn new(
        watched: Vec<Watched>,
        endpoints: BTreeMap<String, Arc<SlowAnswers>>,
        only_cloud_ews: bool,
    ) -> prometheus::Result<Self> {
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["route"]);
        let cloud = IntGauge::new(
            "exogate_relay_only_cloud_ews",
            "1 if all routes are for EWS and their senders in Exchange Online, where EWS ends on 2027-04-01.",
        )?;
        cloud.set(i64::from(only_cloud_ews));
        Ok(Self {
            watched,
            endpoints,
            last: gauge(
                "exogate_relay_last_notification_timestamp_seconds",
                "When the route was last notified, 0 if never since the start.",
            )?,
            subscriptions: gauge(
                "exogate_relay_subscriptions",
                "Subscriptions that were heard since the start.",
            )?,
            silent: gauge(
                "exogate_relay_silent_subscriptions",
                "Subscriptions that have been silent for longer than silent_after.",
            )?,
            slow: GaugeVec::new(
                Opts::new(
                    "exogate_relay_slow_answers_ratio",
                    "Share of the answers to Graph in the last ten minutes that took longer than 3 s or 10 s, by host. Graph delays notifications above 0.1 (3 s) and drops them above 0.15 (10 s).",
                ),
                &["host", "over"],
            )?,
            only_cloud_ews: cloud,
        })
    }
}

impl Collector for Clocked {
    fn desc(&self) -> Vec<&Desc> {
        [
            self.last.desc(),
            self.subscriptions.desc(),
            self.silent.desc(),
            self.slow.desc(),
            self.only_cloud_ews.desc(),
        ]
        .concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = jiff::Timestamp::now();
        for Watched { route, silence } in &self.watched {
            let last = silence.last().map_or(0, jiff::Timestamp::as_second);
            self.last.with_label_values(&[route]).set(last);
            let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
            self.silent.with_label_values(&[route]).set(count(silence.silent(now).len()));
            self.subscriptions.with_label_values(&[route]).set(count(silence.known()));
        }
        for (host, endpoint) in &self.endpoints {
            let shares = endpoint.shares();
            self.slow.with_label_values(&[host.as_str(), "3s"]).set(shares.slow);
            self.slow.with_label_values(&[host.as_str(), "10s"]).set(shares.too_slow);
        }
        [
            self.last.collect(),
            self.subscriptions.collect(),
            self.silent.collect(),
            self.slow.collect(),
            self.only_cloud_ews.collect(),
        ]
        .concat()
    }
}

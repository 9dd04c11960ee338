//! The metrics of delivery.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// What delivery counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) attempts: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) dead: IntCounterVec,
    pub(super) age: HistogramVec,
    pub(super) in_flight: IntGaugeVec,
    pub(super) window: IntGauge,
    pub(super) unsettled: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If a name is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let attempts = IntCounterVec::new(
            Opts::new(
                "exogate_delivery_attempts_total",
                "Attempts to deliver a record, by result.",
            ),
            &["route", "result"],
        )?;
        let retries = IntCounterVec::new(
            Opts::new(
                "exogate_delivery_retries_total",
                "Records that will be tried again, each time that an attempt failed.",
            ),
            &["route"],
        )?;
        let dead = IntCounterVec::new(
            Opts::new(
                "exogate_delivery_dead_letters_total",
                "Records that were given up, by reason: refused, expired, no_route or unreadable.",
            ),
            &["route", "reason"],
        )?;
        let age = HistogramVec::new(
            HistogramOpts::new(
                "exogate_delivery_age_seconds",
                "Time from the acceptance of a record to its delivery.",
            )
            .buckets(vec![
                0.01, 0.05, 0.1, 0.5, 1.0, 3.0, 10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0,
                86_400.0,
            ]),
            &["route"],
        )?;
        let in_flight = IntGaugeVec::new(
            Opts::new("exogate_delivery_in_flight", "Records that are being delivered now."),
            &["route"],
        )?;
        let window = IntGauge::new(
            "exogate_delivery_window_records",
            "Records that delivery has in view; beyond 20000 no further ones are looked at.",
        )?;
        let unsettled = IntGauge::new(
            "exogate_delivery_unsettled_records",
            "Records that were delivered or given up, which the spool could not write down yet.",
        )?;
        registry.register(Box::new(attempts.clone()))?;
        registry.register(Box::new(retries.clone()))?;
        registry.register(Box::new(dead.clone()))?;
        registry.register(Box::new(age.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(window.clone()))?;
        registry.register(Box::new(unsettled.clone()))?;
        Ok(Self { attempts, retries, dead, age, in_flight, window, unsettled })
    }

    /// Lets the rows of a route exist before anything happens to it.
    pub(super) fn begin(&self, route: &str) {
        self.attempts.with_label_values(&[route, "delivered"]);
        self.retries.with_label_values(&[route]);
        self.age.with_label_values(&[route]);
        self.in_flight.with_label_values(&[route]);
        for reason in ["refused", "expired", "no_route", "unreadable"] {
            self.dead.with_label_values(&[route, reason]);
        }
    }

    pub(super) fn attempted(&self, route: &str, result: &str) {
        self.attempts.with_label_values(&[route, result]).inc();
    }
}

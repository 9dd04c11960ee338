//! The listeners' metrics: connections, handshakes, certificates, and requests
//! that were refused before anybody looked at what they ask for.

use exogate_ebpf::verdict::Action;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::{connection::Outcome, guard::Refusal};

/// The metrics of all listeners.
#[derive(Clone)]
pub struct Metrics {
    connections: IntGaugeVec,
    ended: IntCounterVec,
    admissions: IntCounterVec,
    handshakes: HistogramVec,
    accept_errors: IntCounterVec,
    refusals: IntCounterVec,
    panics: IntCounterVec,
    reloads: IntCounterVec,
    expiry: IntGaugeVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If a name is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let handshakes = HistogramVec::new(
            HistogramOpts::new(
                "exogate_relay_tls_handshake_duration_seconds",
                "Time of a TLS handshake that succeeded.",
            )
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
            &["listener"],
        )?;
        registry.register(Box::new(handshakes.clone()))?;
        Ok(Self {
            handshakes,
            connections: gauge(
                "exogate_relay_connections",
                "Connections that are open now.",
                &["listener"],
            )?,
            ended: counter(
                "exogate_relay_connections_total",
                "Connections that have ended, by what became of them.",
                &["listener", "result"],
            )?,
            admissions: counter(
                "exogate_relay_admissions_total",
                "Sources of connections that were judged by the list in force: pass, drop or would_drop.",
                &["listener", "action"],
            )?,
            accept_errors: counter(
                "exogate_relay_accept_errors_total",
                "Failures to accept a connection: no descriptors, no memory or another.",
                &["listener", "reason"],
            )?,
            refusals: counter(
                "exogate_relay_malformed_requests_total",
                "Requests that were answered 4xx because two parties could read them in two ways.",
                &["listener", "reason"],
            )?,
            panics: counter(
                "exogate_relay_handler_panics_total",
                "Requests whose handling ended in a panic; they were answered 500. Always a bug.",
                &["listener"],
            )?,
            reloads: counter(
                "exogate_relay_certificate_reloads_total",
                "New files of certificates that were looked at, by result: ok or failed.",
                &["listener", "result"],
            )?,
            expiry: gauge(
                "exogate_relay_certificate_expiry_timestamp_seconds",
                "When the certificate with this name, or one of its chain, expires.",
                &["listener", "name"],
            )?,
        })
    }

    /// The metrics of one listener.
    pub(super) fn of(&self, listener: &str) -> ListenerMetrics {
        let label = |vector: &IntCounterVec, value| vector.with_label_values(&[listener, value]);
        ListenerMetrics {
            connections: self.connections.with_label_values(&[listener]),
            ended: Outcome::ALL.map(|outcome| label(&self.ended, outcome.name())),
            admissions: Action::ALL.map(|action| label(&self.admissions, action.name())),
            handshakes: self.handshakes.with_label_values(&[listener]),
            no_descriptors: label(&self.accept_errors, "no_descriptors"),
            no_memory: label(&self.accept_errors, "no_memory"),
            other_accept_errors: label(&self.accept_errors, "other"),
            refusals: Refusal::ALL.map(|refusal| label(&self.refusals, refusal.name())),
            panics: self.panics.with_label_values(&[listener]),
            reloads_ok: label(&self.reloads, "ok"),
            reloads_failed: label(&self.reloads, "failed"),
            expiry: self.expiry.clone(),
            listener: listener.to_owned(),
        }
    }
}

/// The metrics of one listener, looked up once.
pub(super) struct ListenerMetrics {
    pub(super) connections: IntGauge,
    ended: [IntCounter; Outcome::ALL.len()],
    admissions: [IntCounter; Action::ALL.len()],
    pub(super) handshakes: Histogram,
    pub(super) no_descriptors: IntCounter,
    pub(super) no_memory: IntCounter,
    pub(super) other_accept_errors: IntCounter,
    refusals: [IntCounter; Refusal::ALL.len()],
    pub(super) panics: IntCounter,
    pub(super) reloads_ok: IntCounter,
    pub(super) reloads_failed: IntCounter,
    expiry: IntGaugeVec,
    listener: String,
}

impl ListenerMetrics {
    pub(super) fn ended(&self, outcome: Outcome) {
        if let Some(counter) = self.ended.get(outcome as usize) {
            counter.inc();
        }
    }

    /// Connections that were cut.
    pub(super) fn cut(&self) -> u64 {
        self.ended.get(Outcome::Cut as usize).map_or(0, IntCounter::get)
    }

    pub(super) fn judged(&self, action: Action) {
        if let Some(counter) = self.admissions.get(action as usize) {
            counter.inc();
        }
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        if let Some(counter) = self.refusals.get(refusal as usize) {
            counter.inc();
        }
    }

    pub(super) fn set_expiry(&self, name: &str, timestamp: i64) {
        self.expiry.with_label_values(&[self.listener.as_str(), name]).set(timestamp);
    }

    pub(super) fn remove_expiry(&self, name: &str) {
        // An error says that there was none.
        let _ = self.expiry.remove_label_values(&[self.listener.as_str(), name]);
    }
}

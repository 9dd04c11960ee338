//! The metrics of pools and of their servers.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// What became of a request at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    ServerError,
    Connect,
    Busy,
    Timeout,
    Reset,
    Invalid,
    Request,
    Cancelled,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Ok,
        Self::ServerError,
        Self::Connect,
        Self::Busy,
        Self::Timeout,
        Self::Reset,
        Self::Invalid,
        Self::Request,
        Self::Cancelled,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ServerError => "server_error",
            Self::Connect => "connect",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Invalid => "invalid",
            Self::Request => "request",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What pools count.
#[derive(Clone, Debug)]
pub struct Metrics {
    up: IntGaugeVec,
    open: IntGaugeVec,
    drained: IntGaugeVec,
    requests: IntCounterVec,
    seconds: HistogramVec,
    failed_probes: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If a name is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        const SERVER: [&str; 2] = ["upstream", "server"];
        let up = IntGaugeVec::new(
            Opts::new(
                "exogate_upstream_up",
                "1 if the server's last probe was well and its circuit breaker is closed.",
            ),
            &SERVER,
        )?;
        let open = IntGaugeVec::new(
            Opts::new(
                "exogate_upstream_breaker_open",
                "1 while the server is left alone because requests to it failed.",
            ),
            &SERVER,
        )?;
        let drained = IntGaugeVec::new(
            Opts::new(
                "exogate_upstream_drained",
                "1 while an operator has taken the server out of service.",
            ),
            &SERVER,
        )?;
        let requests = IntCounterVec::new(
            Opts::new("exogate_upstream_requests_total", "Requests to the server, by result."),
            &["upstream", "server", "result"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new(
                "exogate_upstream_response_duration_seconds",
                "Time from a request to the end of the head of its answer, without the wait for a free connection.",
            )
            .buckets(vec![
                0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 25.0,
            ]),
            &["upstream"],
        )?;
        let failed_probes = IntCounterVec::new(
            Opts::new(
                "exogate_upstream_probes_failed_total",
                "Probes that the server did not answer with 200 in time.",
            ),
            &SERVER,
        )?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(drained.clone()))?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        registry.register(Box::new(failed_probes.clone()))?;
        Ok(Self { up, open, drained, requests, seconds, failed_probes })
    }

    /// Those of one server, looked up once.
    pub(super) fn of(&self, upstream: &str, server: &str) -> ServerMetrics {
        let labels = [upstream, server];
        let up = self.up.with_label_values(&labels);
        up.set(1);
        ServerMetrics {
            up,
            open: self.open.with_label_values(&labels),
            drained: self.drained.with_label_values(&labels),
            requests: Outcome::ALL.map(|outcome| {
                let labels = [upstream, server, outcome.name()];
                (outcome, self.requests.with_label_values(&labels))
            }),
            seconds: self.seconds.with_label_values(&[upstream]),
            failed_probes: self.failed_probes.with_label_values(&labels),
        }
    }
}

/// The metrics of one server.
#[derive(Debug)]
pub(super) struct ServerMetrics {
    pub(super) up: IntGauge,
    pub(super) open: IntGauge,
    pub(super) drained: IntGauge,
    requests: [(Outcome, IntCounter); 9],
    pub(super) seconds: Histogram,
    pub(super) failed_probes: IntCounter,
}

impl ServerMetrics {
    pub(super) fn count(&self, outcome: Outcome) {
        if let Some((_, counter)) = self.requests.iter().find(|(each, _)| *each == outcome) {
            counter.inc();
        }
    }
}

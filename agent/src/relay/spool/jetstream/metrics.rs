//! Metrics of a spool on NATS JetStream. What waits is told by whoever asks for
//! [`depth`](super::super::Spool::depth).

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// What a spool on JetStream counts.
#[derive(Clone)]
pub struct Metrics {
    /// 1 while there is a connection.
    pub connected: IntGauge,
    /// How often this host's turn to deliver began.
    pub turns: IntCounter,
    /// Seconds until a quorum has a record, whatever the outcome.
    pub append_seconds: Histogram,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    ///
    /// If a name is taken.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let connected = IntGauge::new(
            "exogate_spool_jetstream_connected",
            "1 while there is a connection to a NATS server, else 0.",
        )?;
        let turns = IntCounter::new(
            "exogate_spool_jetstream_turns_total",
            "How often this host became the one that delivers.",
        )?;
        let append_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "exogate_spool_jetstream_append_duration_seconds",
                "Time until a quorum of NATS servers has a record, or has not.",
            )
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5]),
        )?;
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(turns.clone()))?;
        registry.register(Box::new(append_seconds.clone()))?;
        Ok(Self { connected, turns, append_seconds })
    }
}

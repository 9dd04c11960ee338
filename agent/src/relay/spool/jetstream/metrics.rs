//! Metrics of a spool on NATS JetStream, beside those of every spool.

use prometheus::{IntCounter, IntGauge, Registry};

use super::super::metrics;

/// What a spool on JetStream counts.
#[derive(Clone)]
pub struct Metrics {
    /// What every store counts.
    pub store: metrics::Metrics,
    /// 1 while there is a connection.
    pub connected: IntGauge,
    /// How often this host's turn to deliver began.
    pub turns: IntCounter,
}

impl Metrics {
    /// Registers them, those of every store included.
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
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(turns.clone()))?;
        Ok(Self { store: metrics::Metrics::register(registry)?, connected, turns })
    }
}

//! The log of dropped packets.
//!
//! The kernel records a bounded number of drops a second; the log takes fewer
//! still, so that a flood cannot fill a disk. What was left out is counted in the
//! next line.

use std::time::{Duration, Instant};

use prometheus::IntCounter;

use crate::gate::Events;

/// Lines per interval.
const LINES: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(1);

/// Logs the drops of one interface until its program goes away.
pub(super) async fn log(mut events: Events, interface: String, counter: IntCounter) {
    let mut began = Instant::now();
    let mut lines = 0u32;
    let mut left_out = 0u64;
    loop {
        let event = match events.next().await {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(interface, %error, "dropped packets are no longer logged");
                return;
            }
        };
        counter.inc();
        if began.elapsed() >= INTERVAL {
            began = Instant::now();
            lines = 0;
        }
        if lines >= LINES {
            left_out = left_out.saturating_add(1);
            continue;
        }
        lines = lines.saturating_add(1);
        tracing::info!(
            interface,
            action = event.action,
            reason = event.reason,
            source = %event.source,
            destination = %event.destination,
            protocol = event.protocol,
            port = event.port,
            bytes = event.length,
            stands_for = event.weight,
            left_out,
            "refused"
        );
        left_out = 0;
    }
}

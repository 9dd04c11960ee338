//! What becomes of the recorded drops: a log, and the events that operators follow.
//!
//! The kernel records a bounded number of drops a second; the log takes fewer
//! still, so that a flood cannot fill a disk. What was left out is counted in the
//! next line. Whoever follows the events and is too slow is told how many he missed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus::IntCounter;
use tokio::sync::{broadcast, watch};

use crate::{
    admin::{Recent, api::events::Refused},
    gate::{DropEvent, Events, Metrics},
};

/// Lines per interval.
const LINES: u32 = 10;
const INTERVAL: Duration = Duration::from_secs(1);
/// Drops that are remembered.
const REMEMBERED: usize = 256;
/// Drops that a reader may be behind.
const BEHIND: usize = 4096;

/// The recorded drops of all interfaces. Cloning shares them.
#[derive(Clone)]
pub(super) struct Drops {
    past: Arc<Mutex<VecDeque<Arc<Refused>>>>,
    // Its ring is there from the start, so what is in it should be small.
    coming: broadcast::Sender<Arc<Refused>>,
}

impl Default for Drops {
    fn default() -> Self {
        Self { past: Arc::default(), coming: broadcast::Sender::new(BEHIND) }
    }
}

impl Drops {
    /// The latest, and those that come.
    pub(super) fn recent(&self) -> Recent {
        // Under the lock, so that none is missed and none comes twice.
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        Recent { past: past.iter().cloned().collect(), coming: self.coming.subscribe() }
    }

    fn add(&self, refused: Refused) {
        let refused = Arc::new(refused);
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() >= REMEMBERED {
            past.pop_front();
        }
        past.push_back(Arc::clone(&refused));
        // Nobody need follow.
        let _ = self.coming.send(refused);
    }

    /// Takes the drops of one interface until its program goes away, under the name that the
    /// interface has by then.
    pub(super) async fn take(self, mut events: Events, named: watch::Receiver<Named>) {
        let mut log = Log::default();
        loop {
            let event = events.next().await;
            let Named { interface, counter } = named.borrow().clone();
            match event {
                Ok(event) => {
                    counter.inc();
                    log.add(&interface, &event);
                    self.add(refused(interface, &event));
                }
                Err(error) => {
                    tracing::warn!(interface, %error, "dropped packets are no longer logged");
                    return;
                }
            }
        }
    }
}

/// An interface, as its drops are told and counted.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) interface: String,
    counter: IntCounter,
}

impl Named {
    pub(super) fn new(interface: &str, metrics: &Metrics) -> Self {
        let counter = metrics.events.with_label_values(&[interface]);
        Self { interface: interface.to_owned(), counter }
    }
}

fn refused(interface: String, event: &DropEvent) -> Refused {
    Refused {
        at: Timestamp::now(),
        interface,
        action: event.action.to_owned(),
        reason: event.reason.to_owned(),
        family: event.family.to_owned(),
        source: event.source,
        source_port: event.source_port,
        destination: event.destination,
        port: event.port,
        protocol: event.protocol,
        bytes: event.length,
        stands_for: event.weight,
    }
}

/// The log of one interface.
struct Log {
    began: Instant,
    lines: u32,
    left_out: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { began: Instant::now(), lines: 0, left_out: 0 }
    }
}

impl Log {
    fn add(&mut self, interface: &str, event: &DropEvent) {
        if self.began.elapsed() >= INTERVAL {
            self.began = Instant::now();
            self.lines = 0;
        }
        if self.lines >= LINES {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.lines = self.lines.saturating_add(1);
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
            left_out = self.left_out,
            "refused"
        );
        self.left_out = 0;
    }
}

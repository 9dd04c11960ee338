//! Room for the bodies that are held in memory, of all routes together.
//!
//! A notification is small, and held for milliseconds. But each connection may bring
//! one of `body_size`, and there may be thousands of connections: without a common
//! limit, senders that are slow and many would take all memory of the host. Bodies of
//! a proxy are not held, and take no room here.
//!
//! Nobody waits for room: what finds none is answered 503, which senders repeat.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use prometheus::{IntGauge, Registry};

/// The room.
#[derive(Clone)]
pub(in crate::relay) struct Memory(Arc<State>);

struct State {
    size: usize,
    taken: AtomicUsize,
    gauge: IntGauge,
}

impl Memory {
    /// Room for so many bytes.
    ///
    /// # Errors
    ///
    /// If the metric's name is taken.
    pub(in crate::relay) fn new(size: usize, registry: &Registry) -> prometheus::Result<Self> {
        let gauge = IntGauge::new(
            "exogate_relay_body_memory_bytes",
            "Bytes of request bodies that are held in memory now, at most relay.body_memory.",
        )?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self(Arc::new(State { size, taken: AtomicUsize::new(0), gauge })))
    }

    /// Nothing yet.
    pub(super) fn hold(&self) -> Held {
        Held { memory: self.clone(), size: 0 }
    }
}

/// Room that a body takes, until this is dropped.
pub(super) struct Held {
    memory: Memory,
    size: usize,
}

impl Held {
    /// Takes room for more. Whether there is any.
    #[must_use]
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let state = &*self.memory.0;
        let grown = |taken: usize| taken.checked_add(more).filter(|taken| *taken <= state.size);
        let is_there = state.taken.fetch_update(Relaxed, Relaxed, grown).is_ok();
        if is_there {
            self.size = self.size.saturating_add(more);
            state.gauge.add(i64::try_from(more).unwrap_or(i64::MAX));
        }
        is_there
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let state = &*self.memory.0;
        state.taken.fetch_sub(self.size, Relaxed);
        state.gauge.sub(i64::try_from(self.size).unwrap_or(i64::MAX));
    }
}

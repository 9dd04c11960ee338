//! When something last moved, for limits that begin anew with each part.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::after;

/// When a body was last seen to move, so that the wait for an answer begins at its end.
#[derive(Debug)]
pub(in crate::relay) struct Progress {
    start: Instant,
    millis: AtomicU64,
}

impl Progress {
    pub(in crate::relay) fn new() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0) }
    }

    /// It moved.
    pub(in crate::relay) fn moved(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// When it last moved.
    pub(in crate::relay) fn last(&self) -> Instant {
        after(self.start, Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }
}

//! How a listener stops: it is told once, and knows until when.

use std::{sync::OnceLock, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Whether we drain, and when that ends.
#[derive(Default)]
pub(super) struct Drain {
    begun: CancellationToken,
    end: OnceLock<Instant>,
}

impl Drain {
    /// Begins. What is not done after `within` is cut.
    pub(super) fn begin(&self, within: Duration) -> Instant {
        let now = Instant::now();
        // A second call does not move the end.
        let end = *self.end.get_or_init(|| now.checked_add(within).unwrap_or(now));
        self.begun.cancel();
        end
    }

    /// Waits for the beginning.
    pub(super) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// When it ends, once it has begun.
    pub(super) fn end(&self) -> Option<Instant> {
        self.end.get().copied()
    }

    /// Waits for the end.
    pub(super) async fn cut(&self) {
        self.begun().await;
        if let Some(end) = self.end() {
            sleep_until(end).await;
        }
    }
}

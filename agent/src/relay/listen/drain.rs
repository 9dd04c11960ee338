//! How a listener stops: it is told once, and knows until when.

use std::{sync::OnceLock, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a connection that was just made may take to bring its first request,
/// once we drain. One that is only held open must not hold up a restart.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Whether we drain, and when that ends.
#[derive(Default)]
pub(super) struct Drain {
    begun: CancellationToken,
    moments: OnceLock<Moments>,
}

#[derive(Clone, Copy)]
struct Moments {
    latest_start: Instant,
    end: Instant,
}

impl Drain {
    /// Begins. What is not done after `within` is cut.
    pub(super) fn begin(&self, within: Duration) -> Instant {
        let now = Instant::now();
        let after = |time| now.checked_add(time).unwrap_or(now);
        // A second call does not move the end.
        let moments = self.moments.get_or_init(|| {
            // What begins late has time left for its answer.
            let first = FIRST_REQUEST.min(within.checked_div(2).unwrap_or_default());
            Moments { latest_start: after(first), end: after(within) }
        });
        self.begun.cancel();
        moments.end
    }

    /// Waits for the beginning.
    pub(super) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// When it ends, once it has begun.
    pub(super) fn end(&self) -> Option<Instant> {
        self.moments.get().map(|moments| moments.end)
    }

    /// Until when a connection may bring its first request, once it has begun.
    pub(super) fn latest_start(&self) -> Option<Instant> {
        self.moments.get().map(|moments| moments.latest_start)
    }

    /// Waits for the end.
    pub(super) async fn cut(&self) {
        self.begun().await;
        if let Some(end) = self.end() {
            sleep_until(end).await;
        }
    }

    /// Waits until it is too late for a first request.
    pub(super) async fn late(&self) {
        self.begun().await;
        if let Some(latest) = self.latest_start() {
            sleep_until(latest).await;
        }
    }
}

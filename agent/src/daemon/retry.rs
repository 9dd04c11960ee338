//! When what failed is tried again: after a second, then after pauses that double, up to a
//! minute. Until it works, or nothing is left to be tried.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Something that may have to be tried again.
#[derive(Default)]
pub(super) struct Retry {
    due: Option<Instant>,
    pause: Duration,
}

impl Retry {
    /// Whether it is time to try.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// It failed once more.
    pub(super) fn failed(&mut self) {
        self.pause = self.pause.saturating_mul(2).clamp(FIRST, LONGEST);
        self.due = Instant::now().checked_add(self.pause);
    }

    /// There is nothing to try.
    pub(super) fn settle(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_minute_and_begin_anew_when_it_works() {
        let mut retry = Retry::default();
        assert!(!retry.is_due());
        for round in 0..2 {
            for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
                retry.failed();
                advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
                assert!(!retry.is_due(), "{round}: before {seconds} s");
                advance(Duration::from_millis(1)).await;
                assert!(retry.is_due(), "{round}: after {seconds} s");
            }
            retry.settle();
            assert!(!retry.is_due());
        }
    }
}

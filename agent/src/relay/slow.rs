//! The share of slow answers, as Microsoft counts it.
//!
//! Graph delays notifications for ten minutes when more than 10 % of the answers
//! of an endpoint within ten minutes took longer than 3 s, and drops them when
//! more than 15 % took longer than 10 s
//! (<https://learn.microsoft.com/graph/change-notifications-delivery-webhooks>).
//! An endpoint is a host, so one slow route hurts the others of its host. Answers to
//! EWS do not count: Exchange waits for them, and Graph does not know of them.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What Graph calls slow.
pub(super) const SLOW: Duration = Duration::from_secs(3);
/// What Graph calls too slow.
pub(super) const TOO_SLOW: Duration = Duration::from_secs(10);
/// The time that is looked at.
const WINDOW: u64 = 600;
/// It is looked at in slices of so many seconds.
const SLICE: u64 = 30;
const SLICES: usize = (WINDOW / SLICE) as usize;

/// The answers of an endpoint within the last ten minutes.
#[derive(Debug)]
pub(super) struct SlowAnswers {
    begin: Instant,
    slices: Mutex<[Slice; SLICES]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    /// Which slice since the beginning it holds.
    number: u64,
    answers: u64,
    slow: u64,
    too_slow: u64,
}

/// Shares of all answers, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Shares {
    /// Longer than [`SLOW`].
    pub(super) slow: f64,
    /// Longer than [`TOO_SLOW`].
    pub(super) too_slow: f64,
}

impl Default for SlowAnswers {
    fn default() -> Self {
        Self { begin: Instant::now(), slices: Mutex::default() }
    }
}

impl SlowAnswers {
    /// Counts an answer.
    pub(super) fn answered(&self, took: Duration) {
        let number = self.now();
        let mut slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(number).unwrap_or(0).checked_rem(SLICES).unwrap_or(0);
        let Some(slice) = slices.get_mut(place) else { return };
        if slice.number != number {
            *slice = Slice { number, ..Slice::default() };
        }
        slice.answers = slice.answers.saturating_add(1);
        slice.slow = slice.slow.saturating_add(u64::from(took > SLOW));
        slice.too_slow = slice.too_slow.saturating_add(u64::from(took > TOO_SLOW));
    }

    /// The shares of the last ten minutes.
    #[must_use]
    pub(super) fn shares(&self) -> Shares {
        let now = self.now();
        let slices = self.slices.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_add(1).saturating_sub(SLICES as u64);
        let (mut answers, mut slow, mut too_slow) = (0u64, 0u64, 0u64);
        for slice in slices.iter().filter(|slice| slice.number >= since) {
            answers = answers.saturating_add(slice.answers);
            slow = slow.saturating_add(slice.slow);
            too_slow = too_slow.saturating_add(slice.too_slow);
        }
        if answers == 0 {
            return Shares::default();
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of ten minutes fit")]
        let share = |count: u64| count as f64 / answers as f64;
        Shares { slow: share(slow), too_slow: share(too_slow) }
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_secs().checked_div(SLICE).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn the_share_is_that_of_ten_minutes() {
        let answers = SlowAnswers::default();
        assert_eq!(answers.shares(), Shares::default());
        for took in [1, 1, 4, 11] {
            answers.answered(secs(took));
        }
        assert_eq!(answers.shares(), Shares { slow: 0.5, too_slow: 0.25 });
        advance(secs(300)).await;
        for _ in 0..4 {
            answers.answered(secs(1));
        }
        assert_eq!(answers.shares(), Shares { slow: 0.25, too_slow: 0.125 });
        advance(secs(301)).await;
        assert_eq!(answers.shares(), Shares::default(), "the first four are too old");
        advance(secs(301)).await;
        answers.answered(secs(4));
        assert_eq!(answers.shares(), Shares { slow: 1.0, too_slow: 0.0 });
    }
}

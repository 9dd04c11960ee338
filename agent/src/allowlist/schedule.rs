//! When to ask again.
//!
//! After an answer: the configured interval. After a failure: a minute, doubled
//! with each further one up to an hour. The service is known to hang and to reset
//! connections where it could have answered 429, so these count the same. Both give
//! or take a tenth, so that hosts that started together, or met the same outage, do
//! not ask together. After a 429: an hour, as its documentation says, or longer if
//! it asks for it, and up to a tenth more.

use std::time::Duration;

const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(3600);
/// By which part of a wait it may be longer or shorter.
const SPREAD: f64 = 0.1;

/// The pace of the polls of one instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    failures: u32,
}

impl Schedule {
    /// The wait after an answer. `random` is from 0 to 1.
    pub(super) fn after_answer(&mut self, interval: Duration, random: f64) -> Duration {
        self.failures = 0;
        about(interval, random)
    }

    /// The wait after a failure. `throttled` is what the server asked for, and
    /// `random` is from 0 to 1.
    pub(super) fn after_failure(
        &mut self,
        interval: Duration,
        throttled: Option<Duration>,
        random: f64,
    ) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        if let Some(wait) = throttled {
            return wait.mul_f64(SPREAD.mul_add(random.clamp(0.0, 1.0), 1.0));
        }
        // Another service than Microsoft's may be asked more often than once a
        // minute; failing, it is not asked more often than when it answers.
        let wait = FIRST_RETRY
            .min(interval)
            .checked_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .unwrap_or(LONGEST_RETRY)
            .min(LONGEST_RETRY);
        about(wait, random)
    }
}

/// Give or take a tenth.
fn about(wait: Duration, random: f64) -> Duration {
    wait.mul_f64((2.0 * SPREAD).mul_add(random.clamp(0.0, 1.0), 1.0 - SPREAD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::random;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn answers_are_an_interval_apart_give_or_take_a_tenth() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.after_answer(HOUR, 0.0), Duration::from_secs(3240));
        assert_eq!(schedule.after_answer(HOUR, 0.5), HOUR);
        assert_eq!(schedule.after_answer(HOUR, 1.0), Duration::from_secs(3960));
        for _ in 0..1000 {
            let wait = schedule.after_answer(HOUR, random()).as_secs();
            assert!((3240..=3960).contains(&wait));
        }
    }

    #[test]
    fn failures_double_from_a_minute_to_an_hour() {
        let mut schedule = Schedule::default();
        let mut waits = || schedule.after_failure(HOUR, None, 0.5).as_secs() / 60;
        assert_eq!([(); 8].map(|()| waits()), [1, 2, 4, 8, 16, 32, 60, 60]);
        for _ in 0..100 {
            assert_eq!(schedule.after_failure(HOUR, None, 0.5), HOUR);
        }
        schedule.after_answer(HOUR, 0.5);
        assert_eq!(schedule.after_failure(HOUR, None, 0.5), FIRST_RETRY);
        let wait = schedule.after_failure(HOUR, None, 0.0).as_secs();
        assert_eq!(wait, 108, "a tenth less than two minutes");
    }

    #[test]
    fn throttling_is_obeyed() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.after_failure(HOUR, Some(2 * HOUR), 0.0), 2 * HOUR);
        assert_eq!(schedule.after_failure(HOUR, Some(HOUR), 0.0), HOUR);
        let wait = schedule.after_failure(HOUR, Some(HOUR), 1.0);
        assert_eq!(wait, Duration::from_secs(3960), "later, and never sooner");
    }
}

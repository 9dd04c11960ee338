//! When to ask again.
//!
//! After an answer: the configured interval, give or take a tenth, so that hosts
//! do not ask together. After a failure: a minute, doubled with each further one
//! up to an hour. The service is known to hang and to reset connections where it
//! could have answered 429, so these count the same. After a 429: an hour, as its
//! documentation says, or longer if it asks for it.

use std::time::Duration;

const FIRST_RETRY: Duration = Duration::from_secs(60);
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// The pace of the polls of one instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    failures: u32,
}

impl Schedule {
    /// The wait after an answer. `random` is from 0 to 1.
    pub(super) fn after_answer(&mut self, interval: Duration, random: f64) -> Duration {
        self.failures = 0;
        interval.mul_f64(0.2f64.mul_add(random.clamp(0.0, 1.0), 0.9))
    }

    /// The wait after a failure. `throttled` is what the server asked for.
    pub(super) fn after_failure(
        &mut self,
        interval: Duration,
        throttled: Option<Duration>,
    ) -> Duration {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        if let Some(wait) = throttled {
            return wait;
        }
        // Another service than Microsoft's may be asked more often than once a
        // minute; failing, it is not asked more often than when it answers.
        FIRST_RETRY
            .min(interval)
            .checked_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .unwrap_or(LONGEST_RETRY)
            .min(LONGEST_RETRY)
    }
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
        let mut waits = || schedule.after_failure(HOUR, None).as_secs() / 60;
        assert_eq!([(); 8].map(|()| waits()), [1, 2, 4, 8, 16, 32, 60, 60]);
        for _ in 0..100 {
            assert_eq!(schedule.after_failure(HOUR, None), HOUR);
        }
        schedule.after_answer(HOUR, 0.5);
        assert_eq!(schedule.after_failure(HOUR, None), FIRST_RETRY);
    }

    #[test]
    fn throttling_is_obeyed() {
        let mut schedule = Schedule::default();
        assert_eq!(schedule.after_failure(HOUR, Some(2 * HOUR)), 2 * HOUR);
        assert_eq!(schedule.after_failure(HOUR, Some(HOUR)), HOUR);
    }

    /// A thousand hosts that start together, as after a power cut, for a day.
    #[test]
    fn a_fleet_that_starts_together_does_not_ask_together() {
        const HOSTS: usize = 1000;
        let first_poll_within = Duration::from_secs(60);
        let mut by_second = vec![0u32; 86_400];
        for _ in 0..HOSTS {
            let mut schedule = Schedule::default();
            let mut at = first_poll_within.mul_f64(random());
            while at < Duration::from_secs(86_400) {
                by_second[usize::try_from(at.as_secs()).unwrap()] += 1;
                at += schedule.after_answer(HOUR, random());
            }
        }
        let busiest = |seconds: &[u32]| seconds.iter().copied().max().unwrap();
        // 17 on average at first; ten hours later, one in four seconds.
        assert!(busiest(&by_second[..60]) <= 50, "{:?}", &by_second[..60]);
        assert!(busiest(&by_second[60..]) <= 15);
        assert!(busiest(&by_second[36_000..]) <= 8);
        assert!(by_second[..60].iter().filter(|asked| **asked > 0).count() > 55);
    }
}

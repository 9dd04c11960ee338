//! How long to wait before a record is tried again.

use std::time::Duration;

use hyper::{HeaderMap, header::RETRY_AFTER};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

/// Longer than that nobody is left alone, whatever a server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Exponential, with full jitter: what failed together does not come back together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    /// The longest wait after the first failure; it doubles with each further one.
    pub(super) first: Duration,
    /// Up to this.
    pub(super) longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// The wait after so many failures, where `random` is from 0 to 1. What a
    /// server asks for comes first, and then the jitter of a first failure.
    pub(super) fn wait(&self, failures: u32, asked: Option<Duration>, random: f64) -> Duration {
        if let Some(asked) = asked {
            return asked.saturating_add(self.first.mul_f64(random));
        }
        let doublings = failures.saturating_sub(1).min(31);
        let bound = self.first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        bound.min(self.longest).mul_f64(random)
    }
}

/// How long a server asks to be left alone: `Retry-After` in seconds or as a date.
pub(in crate::relay) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        // The one form of a date that may be sent (RFC 9110, section 5.6.7).
        let date = DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(asked.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn asked(value: &str) -> Option<Duration> {
        let now = "1994-11-06T08:49:00Z".parse().unwrap();
        let headers = [(RETRY_AFTER, value.parse().unwrap())].into_iter().collect();
        retry_after(&headers, now)
    }

    #[test]
    fn the_wait_doubles_up_to_a_minute() {
        let backoff = Backoff::default();
        for (failures, longest) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (1000, 60)] {
            assert_eq!(backoff.wait(failures, None, 1.0), Duration::from_secs(longest));
            assert_eq!(backoff.wait(failures, None, 0.5), Duration::from_secs(longest) / 2);
        }
    }

    #[test]
    fn a_server_is_left_alone_for_as_long_as_it_asks() {
        let asked = Some(Duration::from_secs(300));
        assert_eq!(Backoff::default().wait(1, asked, 0.0), Duration::from_secs(300));
        assert_eq!(Backoff::default().wait(1, asked, 1.0), Duration::from_secs(301));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        for (value, seconds) in [
            ("0", 0),
            ("120", 120),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 37),
            ("Sun, 06 Nov 1994 08:48:37 GMT", 0),
            ("Sun, 06 Nov 1994 10:49:37 GMT", 3600),
            ("86400", 3600),
            ("99999999999999999999999", 3600),
        ] {
            assert_eq!(asked(value), Some(Duration::from_secs(seconds)), "{value}");
        }
        for value in ["", "soon", "-1", "1.5", "1994-11-06"] {
            assert_eq!(asked(value), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_retry_after_is_longer_than_an_hour(value in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = [(RETRY_AFTER, value)].into_iter().collect();
                let asked = retry_after(&headers, Timestamp::now());
                prop_assert!(asked.is_none_or(|asked| asked <= LONGEST_PAUSE));
            }
        }
    }
}

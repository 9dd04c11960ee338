//! Who has not been heard from for too long.
//!
//! Exchange deletes a subscription that it cannot deliver to, and a tenant can be
//! cut off, without a word to the receiver: silence is the only sign. So each
//! route remembers when each of its subscriptions was last heard, and how many
//! have been silent for longer than `silent_after`.
//!
//! The memory is that of the process: after a restart a subscription counts from
//! its first notification on. It is bounded; a subscription that has been silent
//! for a week is forgotten, and so is one that ended with Unsubscribe.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;

/// Subscriptions that are remembered for a route. Those beyond it are not watched.
const MOST: usize = 20_000;
/// After so long a silent subscription is no longer missed.
const FORGOTTEN: Duration = Duration::from_secs(7 * 86_400);

/// The subscriptions of a route.
#[derive(Debug)]
pub struct Silence {
    after: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Timestamp>,
    heard: HashMap<String, Timestamp>,
}

/// A subscription and when it was last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its identifier.
    pub subscription: String,
    /// When.
    pub at: Timestamp,
}

impl Silence {
    /// Nobody has been heard yet. Without a time nobody is ever silent.
    #[must_use]
    pub fn new(after: Option<Duration>) -> Self {
        Self { after, state: Mutex::default() }
    }

    /// Remembers a notification.
    pub fn hear(&self, subscriptions: &[String], now: Timestamp) {
        let mut state = self.lock();
        state.last = Some(now);
        for subscription in subscriptions {
            if let Some(heard) = state.heard.get_mut(subscription) {
                *heard = now;
            } else if state.heard.len() < MOST {
                state.heard.insert(subscription.clone(), now);
            }
        }
    }

    /// A subscription has ended.
    pub fn forget(&self, subscription: &str) {
        self.lock().heard.remove(subscription);
    }

    /// The last notification of the route.
    #[must_use]
    pub fn last(&self) -> Option<Timestamp> {
        self.lock().last
    }

    /// How many subscriptions are known.
    #[must_use]
    pub fn known(&self) -> usize {
        self.lock().heard.len()
    }

    /// The subscriptions that are silent, longest first.
    #[must_use]
    pub fn silent(&self, now: Timestamp) -> Vec<Heard> {
        let Some(after) = self.after else { return Vec::new() };
        let mut state = self.lock();
        state.heard.retain(|_, heard| !is_before(*heard, now, FORGOTTEN));
        let silent = state.heard.iter().filter(|(_, heard)| is_before(**heard, now, after));
        let mut silent: Vec<_> =
            silent.map(|(name, at)| Heard { subscription: name.clone(), at: *at }).collect();
        silent.sort_by(|a, b| (a.at, &a.subscription).cmp(&(b.at, &b.subscription)));
        silent
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a time lies more than a span before now.
fn is_before(time: Timestamp, now: Timestamp, span: Duration) -> bool {
    now.checked_sub(span).is_ok_and(|limit| time < limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000i64.saturating_add(seconds)).unwrap()
    }

    fn names(silent: &[Heard]) -> Vec<&str> {
        silent.iter().map(|heard| heard.subscription.as_str()).collect()
    }

    #[test]
    fn a_subscription_is_silent_until_it_is_heard_again() {
        let silence = Silence::new(Some(Duration::from_secs(3600)));
        silence.hear(&["a".to_owned(), "b".to_owned()], at(0));
        assert!(silence.silent(at(3600)).is_empty());
        assert_eq!(names(&silence.silent(at(3601))), ["a", "b"]);
        silence.hear(&["b".to_owned()], at(3602));
        assert_eq!(names(&silence.silent(at(3603))), ["a"]);
        assert_eq!(silence.last(), Some(at(3602)));
    }

    #[test]
    fn a_subscription_that_ended_is_not_missed() {
        let silence = Silence::new(Some(Duration::from_secs(60)));
        silence.hear(&["a".to_owned()], at(0));
        silence.forget("a");
        assert!(silence.silent(at(1000)).is_empty());
        silence.hear(&["b".to_owned()], at(0));
        assert!(silence.silent(at(8 * 86_400)).is_empty(), "nobody waits for ever");
        assert_eq!(silence.known(), 0);
    }

    #[test]
    fn without_a_time_nobody_is_silent() {
        let silence = Silence::new(None);
        silence.hear(&["a".to_owned()], at(0));
        assert!(silence.silent(at(86_400)).is_empty());
    }

    #[test]
    fn what_a_sender_makes_up_does_not_fill_the_memory() {
        let silence = Silence::new(Some(Duration::from_secs(60)));
        for number in 0..MOST.saturating_add(10) {
            silence.hear(&[number.to_string()], at(0));
        }
        assert_eq!(silence.known(), MOST);
    }
}

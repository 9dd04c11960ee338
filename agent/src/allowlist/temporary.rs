//! What an operator lets pass for a while.
//!
//! At three in the morning somebody has to be let in, and nobody will think of
//! taking it back. So a temporary entry has an end and a reason. Every guard
//! accepts it, it survives a restart, and when its time has come the list is
//! published without it. It needs an agent for that: while none runs, the filter
//! stays as it was left.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::vet;
use crate::source::{Entry, Origin};

/// Longest time that an entry can be asked for.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// Most entries at a time.
const MOST: usize = 1000;
/// Longest reason.
const LONGEST_REASON: usize = 500;

/// A prefix that passes for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Temporary {
    /// The prefix.
    pub prefix: IpNet,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
}

impl Temporary {
    /// An entry from now on.
    ///
    /// # Errors
    ///
    /// A sentence that says what is not allowed.
    pub fn new(
        prefix: IpNet,
        time: Duration,
        reason: &str,
        now: Timestamp,
    ) -> Result<Self, String> {
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > LONGEST_REASON {
            return Err(format!("a reason of 1 to {LONGEST_REASON} bytes is needed"));
        }
        if reason.contains(char::is_control) {
            return Err("a reason is one line of text".to_owned());
        }
        if time.is_zero() || time > LONGEST {
            return Err("the time must be 1s to 30d; for longer, use the configuration".to_owned());
        }
        let origin = || Origin::Static;
        let content =
            crate::source::feed::Content::Entries(vec![Entry { prefix, origin: origin() }]);
        vet::vet_content(&content, true)
            .map_err(|refusal| format!("{prefix} cannot be allowed ({})", refusal.name()))?;
        let until = now.checked_add(time).map_err(|error| error.to_string())?;
        Ok(Self { prefix, reason: reason.to_owned(), since: now, until })
    }

    /// Whether its time has come.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.until
    }

    /// The entry of the list.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let origin = Origin::Temporary { reason: self.reason.clone(), until: self.until };
        Entry { prefix: self.prefix, origin }
    }
}

/// The entries with another one, which replaces one of the same prefix.
///
/// # Errors
///
/// If there are too many.
pub(super) fn with(all: &[Temporary], new: Temporary) -> Result<Vec<Temporary>, String> {
    let mut all: Vec<_> = all.iter().filter(|entry| entry.prefix != new.prefix).cloned().collect();
    if all.len() >= MOST {
        return Err(format!("there are {MOST} temporary entries already"));
    }
    all.push(new);
    all.sort_by_key(|entry| entry.prefix);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> Timestamp {
        "2026-11-23T20:00:00Z".parse().unwrap()
    }

    fn allow(prefix: &str, time: Duration, reason: &str) -> Result<Temporary, String> {
        Temporary::new(prefix.parse().unwrap(), time, reason, now())
    }

    #[test]
    fn an_entry_has_an_end_and_a_reason() {
        let entry = allow("203.0.113.7/32", 2 * HOUR, " migration ").unwrap();
        assert_eq!(entry.reason, "migration");
        assert!(!entry.is_over(now()));
        assert!(entry.is_over(now() + 2 * HOUR));
        for (prefix, time, reason) in [
            ("203.0.113.7/32", HOUR, ""),
            ("203.0.113.7/32", HOUR, "a\nb"),
            ("203.0.113.7/32", Duration::ZERO, "x"),
            ("203.0.113.7/32", 1000 * HOUR, "x"),
            ("0.0.0.0/0", HOUR, "x"),
            ("::/0", HOUR, "x"),
            ("40.0.0.0/8", HOUR, "x"),
            ("127.0.0.1/32", HOUR, "x"),
        ] {
            assert!(allow(prefix, time, reason).is_err(), "{prefix} {time:?} {reason:?}");
        }
    }

    #[test]
    fn a_prefix_is_there_once_and_the_number_is_bounded() {
        let all = with(&[], allow("40.1.0.0/16", HOUR, "one").unwrap()).unwrap();
        let all = with(&all, allow("40.1.0.0/16", HOUR, "two").unwrap()).unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].reason, "two");
        let full: Vec<_> = (0..MOST)
            .map(|n| allow(&format!("40.1.{}.{}/32", n / 256, n % 256), HOUR, "x").unwrap())
            .collect();
        assert!(with(&full, allow("40.2.0.0/16", HOUR, "x").unwrap()).is_err());
    }
}

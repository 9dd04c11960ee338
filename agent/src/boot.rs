//! The clock that counts from the boot, also while the host sleeps. Nobody can set it, and the
//! XDP program can ask for it. What it says means something until the next boot only.

use std::{fs, time::Duration};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment by this clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTime {
    /// The kernel's name of the boot that it counts from.
    boot: String,
    /// Nanoseconds since then.
    nanoseconds: u64,
}

impl BootTime {
    /// The moment when so much time has passed.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { boot: boot(), nanoseconds: now().saturating_add(time) }
    }

    /// In nanoseconds since the boot.
    #[must_use]
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds
    }

    /// Whether the host has not been booted since.
    #[must_use]
    pub fn is_of_this_boot(&self) -> bool {
        !self.boot.is_empty() && self.boot == boot()
    }

    /// Whether it is over, of which nothing is known after another boot.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_of_this_boot() && now() >= self.nanoseconds
    }
}

/// Nanoseconds since the boot.
#[must_use]
pub(crate) fn now() -> u64 {
    // It is there from Linux 2.6.39 on.
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The kernel's name of this boot; empty where it does not tell, and then like no other.
fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_over_once_its_time_has_passed_in_its_boot() {
        assert!(BootTime::after(Duration::ZERO).is_over());
        assert!(!BootTime::after(Duration::from_secs(3600)).is_over());
        let another = BootTime { boot: "another".to_owned(), nanoseconds: 0 };
        assert!(!another.is_of_this_boot() && !another.is_over());
    }
}

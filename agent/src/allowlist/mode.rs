//! An operator's word on the mode, which goes before the configuration's.
//!
//! Enforcing for the first time may lock somebody out. So it can be tried: unless it is
//! confirmed in time, the mode before comes back by itself. The word and its deadline are in
//! the state directory, so that neither a crash nor a restart of the agent loses them. The
//! deadline is in the table too, and the program in the kernel honours it itself, so that it
//! holds while no agent runs.
//!
//! What an operator reads is the time of day. What counts is the clock of the boot, so that a
//! clock that is set back makes no trial longer. Only after a reboot there is nothing but the
//! time of day to go by.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{boot::BootTime, config::Mode};

/// The mode that an operator wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeOrder {
    /// What happens to refused packets.
    pub mode: Mode,
    /// Since when.
    pub since: Timestamp,
    /// When it ends, unless it is confirmed before; never, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The same moment by the clock of the boot that it was ordered in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<BootTime>,
    /// The word before, which holds again then; the configuration's if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Mode>,
}

impl ModeOrder {
    /// Whether nobody confirmed it in time.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now >= until)
            || self.deadline.as_ref().is_some_and(BootTime::is_over)
    }

    /// The order after a start: if the host was booted since, the rest of its time begins anew
    /// by the clock of this boot.
    pub(super) fn in_this_boot(self, now: Timestamp) -> Self {
        if self.deadline.as_ref().is_some_and(BootTime::is_of_this_boot) {
            return self;
        }
        // At boot the clock may be wrong, but no trial is longer than it was ordered.
        let rest = |until: Timestamp| {
            let rest = until.duration_since(now).min(until.duration_since(self.since));
            std::time::Duration::try_from(rest).unwrap_or_default()
        };
        Self { deadline: self.until.map(rest).map(BootTime::after), ..self }
    }
}

/// The mode that an order leaves of a configured one.
#[must_use]
pub fn mode_in_force(order: Option<&ModeOrder>, configured: Mode, now: Timestamp) -> Mode {
    match order {
        None => configured,
        Some(order) if order.is_over(now) => order.former.unwrap_or(configured),
        Some(order) => order.mode,
    }
}

/// The order that is left after its time, or once the configuration says the same.
pub(super) fn settled(
    order: Option<ModeOrder>,
    configured: Mode,
    now: Timestamp,
) -> Option<ModeOrder> {
    let order = match order? {
        order if order.is_over(now) => {
            ModeOrder { mode: order.former?, since: now, until: None, deadline: None, former: None }
        }
        order => order,
    };
    // Of a trial, what comes after it counts too.
    let after = order.until.and(order.former).unwrap_or(configured);
    (order.mode != configured || after != configured).then_some(order)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn order(mode: Mode, until: Option<i64>, former: Option<Mode>) -> Option<ModeOrder> {
        Some(ModeOrder { mode, since: at(0), until: until.map(at), deadline: None, former })
    }

    #[test]
    fn a_trial_ends_with_the_mode_before() {
        let trial = order(Mode::Enforce, Some(10), None);
        assert_eq!(mode_in_force(trial.as_ref(), Mode::Monitor, at(9)), Mode::Enforce);
        assert_eq!(mode_in_force(trial.as_ref(), Mode::Monitor, at(10)), Mode::Monitor);
        assert_eq!(settled(trial.clone(), Mode::Monitor, at(9)), trial);
        assert_eq!(settled(trial, Mode::Monitor, at(10)), None);

        // The configuration enforces, an operator took that back, and tries again.
        let trial = order(Mode::Enforce, Some(10), Some(Mode::Monitor));
        assert_eq!(mode_in_force(trial.as_ref(), Mode::Enforce, at(10)), Mode::Monitor);
        assert_eq!(settled(trial.clone(), Mode::Enforce, at(9)), trial);
        let left = settled(trial, Mode::Enforce, at(10)).unwrap();
        assert_eq!((left.mode, left.until), (Mode::Monitor, None));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_trial_longer() {
        let trial = order(Mode::Enforce, Some(10), None).unwrap();
        let over = ModeOrder { deadline: Some(BootTime::after(Duration::ZERO)), ..trial.clone() };
        assert_eq!(mode_in_force(Some(&over), Mode::Monitor, at(5)), Mode::Monitor);
        assert_eq!(over.clone().in_this_boot(at(-3600)), over, "the same boot goes on");

        // What a boot before left, or a version that knew of no such deadline.
        let begun = trial.clone().in_this_boot(at(4)).deadline.unwrap();
        let [least, most] = [0, 6].map(|rest| BootTime::after(Duration::from_secs(rest)));
        let begun = begun.nanoseconds();
        assert!((least.nanoseconds()..most.nanoseconds()).contains(&begun));
        assert!(trial.clone().in_this_boot(at(11)).deadline.unwrap().is_over());
        let early = trial.in_this_boot(at(-3600)).deadline.unwrap().nanoseconds();
        assert!(early <= BootTime::after(Duration::from_secs(10)).nanoseconds());
        let confirmed = order(Mode::Enforce, None, None);
        assert_eq!(confirmed.clone().map(|order| order.in_this_boot(at(0))), confirmed);
    }

    #[test]
    fn an_order_is_forgotten_once_the_configuration_says_the_same() {
        let confirmed = order(Mode::Enforce, None, None);
        assert_eq!(mode_in_force(confirmed.as_ref(), Mode::Monitor, at(1_000_000)), Mode::Enforce);
        assert_eq!(settled(confirmed.clone(), Mode::Monitor, at(1_000_000)), confirmed);
        assert_eq!(settled(confirmed, Mode::Enforce, at(1)), None);
    }
}

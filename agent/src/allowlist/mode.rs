//! An operator's word on the mode, which goes before the configuration's.
//!
//! Enforcing for the first time may lock somebody out. So it can be tried: unless it is
//! confirmed in time, the mode before comes back by itself. The word and its deadline are in
//! the state directory, so that neither a crash nor a restart of the agent loses them. While
//! no agent runs the filter stays as it was left, and the next start makes up for it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Mode;

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
    /// The word before, which holds again then; the configuration's if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Mode>,
}

impl ModeOrder {
    /// Whether nobody confirmed it in time.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| now >= until)
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
            ModeOrder { mode: order.former?, since: now, until: None, former: None }
        }
        order => order,
    };
    // Of a trial, what comes after it counts too.
    let after = order.until.and(order.former).unwrap_or(configured);
    (order.mode != configured || after != configured).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn order(mode: Mode, until: Option<i64>, former: Option<Mode>) -> Option<ModeOrder> {
        Some(ModeOrder { mode, since: at(0), until: until.map(at), former })
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
    fn an_order_is_forgotten_once_the_configuration_says_the_same() {
        let confirmed = order(Mode::Enforce, None, None);
        assert_eq!(mode_in_force(confirmed.as_ref(), Mode::Monitor, at(1_000_000)), Mode::Enforce);
        assert_eq!(settled(confirmed.clone(), Mode::Monitor, at(1_000_000)), confirmed);
        assert_eq!(settled(confirmed, Mode::Enforce, at(1)), None);
    }
}

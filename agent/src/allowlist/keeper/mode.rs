//! Monitor or enforce, by an operator's word.

use std::{sync::Arc, time::Duration};

use super::{Keeper, command::Outcome};
use crate::{
    allowlist::{Collect, Event, Known, ModeOrder, Publish, Record, mode_in_force, settled},
    boot::BootTime,
    config::{Config, Mode},
};

/// Longest time that enforcing can be tried.
const LONGEST_TRIAL: Duration = Duration::from_secs(7 * 86_400);

impl<C: Collect> Keeper<C> {
    /// The configuration with the mode that is in force.
    pub(super) fn in_mode(&self, config: &Arc<Config>, order: Option<&ModeOrder>) -> Arc<Config> {
        let mode = mode_in_force(order, config.mode, (self.clock)());
        if mode == config.mode {
            return Arc::clone(config);
        }
        Arc::new(Config { mode, ..Config::clone(config) })
    }

    /// Enforces: for good, or unless it is confirmed in time for so long.
    ///
    /// # Errors
    ///
    /// If it is in force already, or cannot be put in force or remembered.
    pub fn enforce<P: Publish>(
        &mut self,
        confirm_within: Option<Duration>,
        publisher: &mut P,
    ) -> Outcome {
        let now = (self.clock)();
        let trial = self.known.mode.as_ref().filter(|order| order.until.is_some());
        if trial.is_none() && self.config.mode == Mode::Enforce {
            return Err("it enforces already".to_owned());
        }
        if confirm_within.is_some_and(|time| time.is_zero() || time > LONGEST_TRIAL) {
            return Err("the time to confirm must be 1s to 7d".to_owned());
        }
        let until = confirm_within.map(|time| now.checked_add(time)).transpose();
        let until = until.map_err(|error| error.to_string())?;
        let former = match trial {
            Some(trial) => trial.former,
            None => self.known.mode.as_ref().map(|order| order.mode),
        };
        let deadline = confirm_within.map(BootTime::after);
        let order = ModeOrder { mode: Mode::Enforce, since: now, until, deadline, former };
        let message = until.map(|until| format!("until {until}, unless it is confirmed"));
        self.order_mode(Some(order), Event::Enforced, message, publisher)
    }

    /// Makes a trial of enforcing last.
    ///
    /// # Errors
    ///
    /// If there is none, or it cannot be remembered.
    pub fn confirm<P: Publish>(&mut self, publisher: &mut P) -> Outcome {
        match &self.known.mode {
            Some(order) if order.until.is_some() => {
                let order =
                    ModeOrder { until: None, deadline: None, former: None, ..order.clone() };
                self.order_mode(Some(order), Event::Confirmed, None, publisher)
            }
            _ => Err("nothing waits to be confirmed; see `exogate status`".to_owned()),
        }
    }

    /// Drops nothing any more.
    ///
    /// # Errors
    ///
    /// If it is so already, or cannot be put in force or remembered.
    pub fn monitor<P: Publish>(&mut self, publisher: &mut P) -> Outcome {
        if self.config.mode == Mode::Monitor {
            return Err("nothing is dropped already".to_owned());
        }
        let since = (self.clock)();
        let order =
            ModeOrder { mode: Mode::Monitor, since, until: None, deadline: None, former: None };
        self.order_mode(Some(order), Event::Monitored, None, publisher)
    }

    /// Goes back to the mode before if nobody confirmed in time. If that fails, it is tried
    /// again.
    pub(super) fn end_trial<P: Publish>(&mut self, publisher: &mut P) {
        let now = (self.clock)();
        if !self.known.mode.as_ref().is_some_and(|order| order.is_over(now)) {
            return;
        }
        let order = self.known.mode.clone();
        let message = Some("nobody confirmed it in time".to_owned());
        if let Err(error) = self.order_mode(order, Event::Reverted, message, publisher) {
            tracing::error!(error, "the time to confirm is over, but the mode before is not back");
        }
        self.show();
    }

    fn order_mode<P: Publish>(
        &mut self,
        order: Option<ModeOrder>,
        event: Event,
        message: Option<String>,
        publisher: &mut P,
    ) -> Outcome {
        let now = (self.clock)();
        let order = settled(order, self.configured.mode, now);
        let config = self.in_mode(&self.configured, order.as_ref());
        let known = Known { mode: order, ..self.known.clone() };
        self.commit(config, known, publisher)?;
        let mode = self.config.mode.name();
        tracing::warn!(mode, message, "an operator's word on the mode: {event:?}");
        self.record(&Record { message, ..Record::new(now, event, self.list.hash()) });
        self.saved()
    }
}

//! Whether a server may be asked: what its probe said last, and a circuit breaker.
//!
//! The breaker opens after so many failures in a row and keeps requests away for a
//! while. Then it lets one through, on trial: an answer closes it, a failure opens
//! it for another while. A request may be slow through no fault of the server, so after
//! that while without news another one tries, too.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::config;

/// The state of one server.
#[derive(Debug)]
pub(super) struct Circuit {
    limits: config::Breaker,
    probed_well: bool,
    failures: u32,
    breaker: Breaker,
    /// What went wrong last.
    pub(super) problem: Option<String>,
    /// Since when it is up, or down.
    pub(super) since: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaker {
    Closed,
    Open {
        until: Instant,
    },
    /// A request tries; from then on, another one may too.
    Trial {
        next: Instant,
    },
}

/// When a request will be let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Now,
    /// Then, to see whether the server is back.
    At(Instant),
    /// When a probe brings news.
    Unknown,
}

/// What a request is to the circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// One of many.
    Ordinary,
    /// The one that tries whether the server is back.
    OnTrial,
}

impl Circuit {
    /// A server that nobody has asked yet is taken to be well.
    pub(super) fn new(limits: config::Breaker) -> Self {
        Self {
            limits,
            probed_well: true,
            failures: 0,
            breaker: Breaker::Closed,
            problem: None,
            since: Timestamp::now(),
        }
    }

    /// Whether nothing is known against it.
    pub(super) fn is_up(&self) -> bool {
        self.probed_well && !self.is_open()
    }

    /// Whether the breaker keeps requests away, but for one perhaps.
    pub(super) fn is_open(&self) -> bool {
        self.breaker != Breaker::Closed
    }

    /// Whether a request would be let through now.
    pub(super) fn admits(&self, now: Instant) -> bool {
        match self.admission() {
            Admission::Now => true,
            Admission::At(at) => at <= now,
            Admission::Unknown => false,
        }
    }

    /// When a request will be let through.
    pub(super) const fn admission(&self) -> Admission {
        match self.breaker {
            _ if !self.probed_well => Admission::Unknown,
            Breaker::Closed => Admission::Now,
            Breaker::Open { until } => Admission::At(until),
            Breaker::Trial { next } => Admission::At(next),
        }
    }

    /// Lets a request through, or not.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Admitted> {
        if !self.admits(now) {
            return None;
        }
        if self.breaker == Breaker::Closed {
            return Some(Admitted::Ordinary);
        }
        self.breaker = Breaker::Trial { next: after(now, self.limits.pause) };
        Some(Admitted::OnTrial)
    }

    /// A request was answered.
    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
        self.breaker = Breaker::Closed;
    }

    /// A request failed.
    pub(super) fn failed(&mut self, admitted: Admitted, problem: String, now: Instant) {
        self.problem = Some(problem);
        self.failures = self.failures.saturating_add(1);
        let opens = match self.breaker {
            Breaker::Closed => self.failures >= self.limits.failures,
            // A request from before it opened says nothing new.
            Breaker::Open { .. } | Breaker::Trial { .. } => admitted == Admitted::OnTrial,
        };
        if opens {
            self.breaker = Breaker::Open { until: after(now, self.limits.pause) };
        }
    }

    /// Nobody knows what became of a request: another one may try.
    pub(super) fn abandoned(&mut self, admitted: Admitted, now: Instant) {
        if admitted == Admitted::OnTrial && matches!(self.breaker, Breaker::Trial { .. }) {
            self.breaker = Breaker::Open { until: now };
        }
    }

    /// A probe was answered well, or has a problem.
    pub(super) fn probed(&mut self, result: Result<(), String>) {
        self.probed_well = result.is_ok();
        if let Err(problem) = result {
            self.problem = Some(problem);
        }
    }
}

/// That much later; without overflow, which no configured time comes near.
pub(in crate::relay) fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    fn circuit() -> Circuit {
        Circuit::new(config::Breaker { failures: 3, pause: PAUSE })
    }

    fn open(now: Instant) -> Circuit {
        let mut circuit = circuit();
        for _ in 0..3 {
            circuit.failed(Admitted::Ordinary, "down".to_owned(), now);
        }
        assert!(circuit.is_open());
        circuit
    }

    #[test]
    fn failures_open_it_only_in_a_row() {
        let now = Instant::now();
        let mut circuit = circuit();
        for _ in 0..10 {
            circuit.failed(Admitted::Ordinary, "down".to_owned(), now);
            circuit.failed(Admitted::Ordinary, "down".to_owned(), now);
            assert!(circuit.is_up());
            circuit.succeeded();
        }
    }

    #[test]
    fn after_the_pause_one_request_is_on_trial() {
        let now = Instant::now();
        let mut circuit = open(now);
        assert_eq!(circuit.admit(now), None);
        let later = now + PAUSE;
        assert_eq!(circuit.admit(later), Some(Admitted::OnTrial));
        assert_eq!(circuit.admit(later), None, "one at a time");
        circuit.succeeded();
        assert!(circuit.is_up());
        assert_eq!(circuit.admit(later), Some(Admitted::Ordinary));
    }

    #[test]
    fn a_trial_that_takes_long_does_not_keep_others_away_for_ever() {
        let now = Instant::now();
        let mut circuit = open(now);
        let slow = circuit.admit(now + PAUSE).unwrap();
        assert_eq!(circuit.admission(), Admission::At(now + 2 * PAUSE));
        assert_eq!(circuit.admit(now + 2 * PAUSE), Some(Admitted::OnTrial));
        circuit.succeeded();
        circuit.failed(slow, "the slow one".to_owned(), now + 3 * PAUSE);
        assert!(circuit.is_up(), "one failure among many");
    }

    #[test]
    fn a_trial_that_fails_opens_it_for_another_pause() {
        let now = Instant::now();
        let mut circuit = open(now);
        let trial = circuit.admit(now + PAUSE).unwrap();
        circuit.failed(trial, "still down".to_owned(), now + PAUSE);
        assert!(!circuit.admits(now + PAUSE));
        assert!(circuit.admits(now + 2 * PAUSE));
    }

    #[test]
    fn a_trial_that_is_given_up_leaves_room_for_another() {
        let now = Instant::now();
        let mut circuit = open(now);
        let trial = circuit.admit(now + PAUSE).unwrap();
        circuit.abandoned(trial, now + PAUSE);
        assert_eq!(circuit.admit(now + PAUSE), Some(Admitted::OnTrial));
    }

    #[test]
    fn a_failure_from_before_it_opened_does_not_prolong_the_pause() {
        let now = Instant::now();
        let mut circuit = open(now);
        circuit.failed(Admitted::Ordinary, "late".to_owned(), now + PAUSE / 2);
        assert!(circuit.admits(now + PAUSE));
    }

    #[test]
    fn a_probe_keeps_requests_away_until_one_is_answered_well() {
        let now = Instant::now();
        let mut circuit = circuit();
        circuit.probed(Err("503".to_owned()));
        assert_eq!(circuit.admit(now), None);
        assert_eq!(circuit.admission(), Admission::Unknown, "no time will do");
        circuit.probed(Ok(()));
        assert_eq!(circuit.admit(Instant::now()), Some(Admitted::Ordinary));
    }
}

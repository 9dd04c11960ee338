//! Whether the agent lives and is ready.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long the main loop may be silent before the agent counts as hung. It
/// beats every second.
const SILENCE: Duration = Duration::from_secs(15);

/// A part of the agent that has to be ready. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Part {
    name: String,
    health: Health,
}

/// The health of the agent. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    beat: Instant,
    pending: Vec<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { beat: Instant::now(), pending: Vec::new() })))
    }
}

impl Health {
    /// Announces a part that is not ready yet.
    #[must_use]
    pub fn expect(&self, name: impl Into<String>) -> Part {
        let part = Part { name: name.into(), health: self.clone() };
        part.set(false);
        part
    }

    /// Says that the main loop is alive.
    pub fn beat(&self) {
        self.with(|state| state.beat = Instant::now());
    }

    /// Whether the main loop is alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.with(|state| state.beat.elapsed() < SILENCE)
    }

    /// The parts that are not ready.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.with(|state| state.pending.clone())
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Part {
    /// Whether the part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.health.with(|state| !state.pending.contains(&self.name))
    }

    /// Says whether the part is ready.
    pub fn set(&self, ready: bool) {
        self.health.with(|state| {
            state.pending.retain(|name| *name != self.name);
            if !ready {
                state.pending.push(self.name.clone());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_ready_when_no_part_is_pending() {
        let health = Health::default();
        let eth0 = health.expect("interface eth0");
        let eth1 = health.expect("interface eth1");
        eth0.set(true);
        assert_eq!(health.pending(), ["interface eth1"]);
        eth1.set(true);
        assert!(health.pending().is_empty());
        eth0.set(false);
        eth0.set(false);
        assert_eq!(health.pending(), ["interface eth0"]);
        assert!(health.is_alive());
    }
}

//! The interfaces that are to be filtered, as they come, go and change their names.
//!
//! Each entry of the configuration is a name or a pattern of names. Whatever fits one of
//! them is filtered, at the start and whenever it appears; the kernel says when. What was
//! filtered stays so under another name, because the filter is the interface's and not
//! the name's. Patterns leave out the loopback interface, and what carries neither
//! Ethernet nor bare IP.
//!
//! An entry is ready when something fits it and all that does is filtered. What is there
//! and is not filtered is open: that is a state in the metrics, and its time is counted.
//! A filter that somebody else removed is not put back: whoever removes pins by hand means
//! it. Under a service manager the watchdog is not fed then, and the next start puts it
//! back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use exogate_ebpf::compile::CompiledTable;
use tokio::task::AbortHandle;

use crate::{
    admin::{Health, Part},
    config::{Config, InterfacePattern},
    daemon::{Attacher, Error, Shared, epoch},
    gate::{
        self, Gate, Interface, Options,
        interface::{self, Listed},
    },
};

/// Interfaces and what the configuration says of them.
pub(super) struct Interfaces {
    wanted: Vec<Wanted>,
    /// Those that are there and not filtered, by number.
    open: BTreeMap<u32, Open>,
    /// The names that have a state in the metrics.
    shown: BTreeSet<String>,
    /// Who takes the drops of each gate, by number.
    takers: BTreeMap<u32, Taker>,
}

/// Takes the recorded drops of a gate. Ends with it: the kernel does not say when there can be
/// no more of them, and the buffer would stay.
struct Taker {
    /// The interface's name when it was opened, as in the metrics.
    interface: String,
    task: AbortHandle,
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An entry of the configuration.
struct Wanted {
    pattern: InterfacePattern,
    part: Part,
    /// The numbers of the interfaces that have their gate because of it.
    held: BTreeSet<u32>,
}

/// An interface without the filter.
struct Open {
    name: String,
    /// When its time was last counted.
    counted: Instant,
}

/// What came of looking at all interfaces.
#[derive(Default)]
pub(super) struct Outcome {
    /// Whether one was filtered.
    pub(super) opened: bool,
    /// What went wrong, by interface.
    pub(super) failures: Vec<(String, Error)>,
}

impl Interfaces {
    /// What is configured; nothing is filtered yet.
    pub(super) fn new(patterns: &[InterfacePattern], health: &Health) -> Self {
        let wanted = |pattern: &InterfacePattern| Wanted {
            pattern: pattern.clone(),
            part: health.expect(format!("interface {pattern}")),
            held: BTreeSet::new(),
        };
        Self {
            wanted: patterns.iter().map(wanted).collect(),
            open: BTreeMap::new(),
            shown: BTreeSet::new(),
            takers: BTreeMap::new(),
        }
    }

    /// Whether all that is configured is there and filtered.
    pub(super) fn all_ready(&self) -> bool {
        self.wanted.iter().all(|wanted| wanted.part.is_ready())
    }

    /// Lets go of what is gone, and filters what is there and is not.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell what there is. What goes wrong on a single interface is
    /// in the outcome.
    pub(super) async fn follow(
        &mut self,
        shared: &Shared,
        attacher: &Attacher,
    ) -> Result<Outcome, Error> {
        let noticed = Instant::now();
        let present = interface::list().await?;
        self.let_go(shared, &present);
        let mut outcome = Outcome::default();
        for found in &present {
            if self.wanted.iter().any(|wanted| wanted.held.contains(&found.index))
                || !self.wanted.iter().any(|wanted| wanted.wants(found))
            {
                continue;
            }
            let open = Open { name: found.name.clone(), counted: noticed };
            self.open.entry(found.index).or_insert(open);
            let table = shared.gates.table();
            match open_gate(attacher, &found.name, &shared.config(), &table).await {
                Ok(gate) => {
                    self.hold(&gate, found);
                    if let Err(error) = self.attend(shared, gate, &table) {
                        tracing::error!(
                            interface = found.name,
                            %error,
                            "the filter is in force, with the list of before until the next one"
                        );
                    }
                    outcome.opened = true;
                    shared.metrics.attach_seconds.observe(noticed.elapsed().as_secs_f64());
                }
                // It has gone again, and the kernel will say so.
                Err(Error::Gate(gate::Error::UnknownInterface { .. })) => {}
                Err(error) => outcome.failures.push((found.name.clone(), error)),
            }
        }
        self.judge(shared);
        Ok(outcome)
    }

    /// Asks the kernel whether each filter is still attached; whether all are.
    pub(super) async fn verify(&mut self, shared: &Shared) -> bool {
        let answers = match shared.gates.verify().await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(%error, "cannot see whether the filter is still attached");
                return false;
            }
        };
        for (index, name, attached) in &answers {
            if *attached || self.open.contains_key(index) {
                continue;
            }
            tracing::error!(
                interface = name,
                "the filter was removed by somebody else; restart the agent to put it back"
            );
            let open = Open { name: name.clone(), counted: Instant::now() };
            self.open.insert(*index, open);
        }
        self.judge(shared);
        answers.iter().all(|(_, _, attached)| *attached)
    }

    /// Says which entries of the configuration wait for an interface.
    pub(super) fn warn_of_missing(&self) {
        for wanted in self.wanted.iter().filter(|wanted| wanted.held.is_empty()) {
            tracing::warn!(
                interface = %wanted.pattern,
                "there is no such interface in this network namespace; it is filtered as soon as \
                 there is; `ip link` lists those there are"
            );
        }
    }

    /// Gates of interfaces that are gone end; those of renamed ones go on.
    fn let_go(&mut self, shared: &Shared, present: &[Listed]) {
        let held = shared.gates.map(|gate| (gate.interface().index, gate.interface().name.clone()));
        for (index, name) in held {
            let Some(found) = present.iter().find(|found| found.index == index) else {
                tracing::warn!(interface = name, "the interface is gone");
                shared.gates.forget(index);
                self.dismiss(shared, index);
                continue;
            };
            if found.name != name {
                tracing::warn!(
                    interface = name,
                    renamed = found.name,
                    "the interface was renamed; it stays filtered"
                );
                shared.gates.rename(index, &found.name);
                self.hold_for(found);
            }
        }
        let is_there = |index: &u32| present.iter().any(|found| found.index == *index);
        for wanted in &mut self.wanted {
            wanted.held.retain(is_there);
        }
        self.count(shared);
        self.open.retain(|index, _| is_there(index));
    }

    /// Takes the drops of a gate, and adds it to the others.
    fn attend(
        &mut self,
        shared: &Shared,
        mut gate: Gate,
        table: &Arc<CompiledTable>,
    ) -> Result<(), gate::Error> {
        let Interface { index, name: interface, .. } = gate.interface().clone();
        match gate.events() {
            Ok(events) => {
                let counter = shared.metrics.events.with_label_values(&[&interface]);
                let taking = shared.drops.clone().take(events, interface.clone(), counter);
                let task = tokio::spawn(taking).abort_handle();
                self.takers.insert(index, Taker { interface, task });
            }
            Err(error) => tracing::warn!(interface, %error, "dropped packets are not logged"),
        }
        shared.gates.add(gate, table)
    }

    /// Takes no more drops of a gate that is gone.
    fn dismiss(&mut self, shared: &Shared, index: u32) {
        let Some(gone) = self.takers.remove(&index) else { return };
        // A name may have gone on to another interface.
        if !self.takers.values().any(|taker| taker.interface == gone.interface) {
            // It is there, or it is gone already.
            let _ = shared.metrics.events.remove_label_values(&[&gone.interface]);
        }
    }

    fn hold(&mut self, gate: &Gate, found: &Listed) {
        let index = gate.interface().index;
        self.hold_for(&Listed { index, ..found.clone() });
    }

    fn hold_for(&mut self, found: &Listed) {
        for wanted in self.wanted.iter_mut().filter(|wanted| wanted.wants(found)) {
            wanted.held.insert(found.index);
        }
    }

    /// Draws the conclusions from what is known.
    fn judge(&mut self, shared: &Shared) {
        self.count(shared);
        let gates = shared
            .gates
            .map(|gate| (gate.interface().index, gate.interface().name.clone(), gate.attached()));
        let is_filtered =
            |index: &u32| gates.iter().any(|(of, _, attached)| of == index && *attached);
        self.open.retain(|index, _| !is_filtered(index));
        let mut states = BTreeMap::new();
        for wanted in &self.wanted {
            let open = self.open.values().any(|open| wanted.pattern.means(&open.name, true));
            let filtered = !wanted.held.is_empty() && wanted.held.iter().all(is_filtered);
            wanted.part.set(filtered && !open);
            if wanted.held.is_empty() && !open {
                states.insert(wanted.pattern.to_string(), "absent");
            }
        }
        states.extend(self.open.values().map(|open| (open.name.clone(), "open")));
        let filtered = gates.into_iter().filter(|(_, _, attached)| *attached);
        states.extend(filtered.map(|(_, name, _)| (name, "filtered")));
        shared.metrics.show_states(&states);
        self.shown.retain(|name| !states.contains_key(name));
        self.shown.iter().for_each(|name| shared.metrics.forget_states(name));
        self.shown = states.into_keys().collect();
    }

    /// Counts the time without a filter since it was last counted.
    fn count(&mut self, shared: &Shared) {
        let now = Instant::now();
        for open in self.open.values_mut() {
            let time = now.saturating_duration_since(open.counted).as_secs_f64();
            open.counted = now;
            // By the entry, because a name may be one of a kind.
            if let Some(wanted) = self.wanted.iter().find(|w| w.pattern.means(&open.name, true)) {
                shared.metrics.open_seconds.with_label_values(&[&*wanted.pattern]).inc_by(time);
            }
        }
    }
}

impl Wanted {
    fn wants(&self, found: &Listed) -> bool {
        means(&self.pattern, found)
    }
}

/// Whether an interface is one of those that an entry of the configuration stands for.
pub(super) fn means(pattern: &InterfacePattern, found: &Listed) -> bool {
    pattern.means(&found.name, found.supported && !found.loopback)
}

/// How the configuration wants gates to be opened.
pub(super) fn options(config: &Config) -> Options {
    Options {
        attach: config.gate.attach,
        capacity: config.gate.capacity,
        pin_directory: config.gate.pin_directory.clone(),
    }
}

async fn open_gate(
    attacher: &Attacher,
    name: &str,
    config: &Config,
    table: &Arc<CompiledTable>,
) -> Result<Gate, Error> {
    let opened = attacher.open(name, options(config), table).await;
    let gate = opened.ok_or_else(|| Error::GaveUp(name.to_owned()))??;
    gate.program().tick(epoch());
    let interface = gate.interface();
    tracing::info!(
        interface = interface.name,
        mode = %gate.mode(),
        adopted = gate.adopted(),
        jumbo_frames = gate.program().takes_jumbo_frames(),
        program = gate.program().id(),
        "filter in force"
    );
    if gate.mode() == gate::Mode::Generic {
        tracing::warn!(
            interface = interface.name,
            "attached in generic mode: it filters correctly, but later and slower than in the driver"
        );
    }
    Ok(gate)
}

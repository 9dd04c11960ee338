//! All gates of one agent, shared by those who publish, scrape and watch.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exogate_ebpf::compile::CompiledTable;

use crate::gate::{Error, Gate, interface};

/// The gates of this agent. Cloning shares them.
#[derive(Clone, Default)]
pub struct Gates(Arc<Mutex<Vec<Gate>>>);

impl Gates {
    /// Adds an opened gate.
    pub fn add(&self, gate: Gate) {
        self.lock().push(gate);
    }

    /// Puts a table in force on every interface.
    ///
    /// # Errors
    ///
    /// The first interface's error. Those before it have the new table then, the
    /// others keep theirs; publishing again is harmless.
    pub fn publish(&self, table: &CompiledTable) -> Result<(), Error> {
        self.lock().iter_mut().try_for_each(|gate| gate.publish(table))
    }

    /// Gives every gate the time, in seconds since 1970. See
    /// [`crate::gate::Program::tick`].
    pub fn tick(&self, seconds: u32) {
        self.lock().iter().for_each(|gate| gate.program().tick(seconds));
    }

    /// Looks at every gate.
    pub fn map<T>(&self, look: impl FnMut(&Gate) -> T) -> Vec<T> {
        self.lock().iter().map(look).collect()
    }

    /// An interface has another name now.
    pub fn rename(&self, index: u32, name: &str) {
        let mut gates = self.lock();
        if let Some(gate) = gates.iter_mut().find(|gate| gate.interface().index == index) {
            name.clone_into(&mut gate.interface.name);
        }
    }

    /// Ends the gate on an interface that is gone, with what is left of its pins.
    pub fn forget(&self, index: u32) {
        let mut gates = self.lock();
        let Some(position) = gates.iter().position(|gate| gate.interface().index == index) else {
            return;
        };
        let gate = gates.swap_remove(position);
        drop(gates);
        if let Err(error) = gate.detach() {
            tracing::warn!(index, %error, "cannot remove the pins of an interface that is gone");
        }
    }

    /// Asks the kernel whether each filter is still attached, and remembers it.
    /// Returns numbers and names of the interfaces, and the answers.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked; what was known is kept then.
    pub async fn verify(&self) -> Result<Vec<(u32, String, bool)>, Error> {
        let mut answers = Vec::new();
        for (index, program) in self.map(|gate| (gate.interface().index, gate.program().id())) {
            let xdp = interface::find_index(index).await?.and_then(|interface| interface.xdp);
            let attached = xdp.is_some_and(|xdp| Some(xdp.program) == program);
            let mut gates = self.lock();
            if let Some(gate) = gates.iter_mut().find(|gate| gate.interface().index == index) {
                gate.attached = attached;
                answers.push((index, gate.interface().name.clone(), attached));
            }
        }
        Ok(answers)
    }

    /// Takes the gates out, to end them.
    #[must_use]
    pub fn take(&self) -> Vec<Gate> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Gate>> {
        // A panic elsewhere leaves the gates as usable as they were.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

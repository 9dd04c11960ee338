//! All gates of one agent, shared by those who publish, scrape and watch.
//!
//! They keep the table that is in force beside the gates and under the same lock: a gate that
//! was opened while another table was published gets that one when it is added, so that no
//! interface stays behind the others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use exogate_ebpf::compile::CompiledTable;

use crate::gate::{Error, Gate, interface};

/// The gates of this agent. Cloning shares them.
#[derive(Clone)]
pub struct Gates(Arc<Mutex<Set>>);

struct Set {
    gates: Vec<Gate>,
    table: Arc<CompiledTable>,
}

impl Gates {
    /// No gates yet, and the table to open them with.
    #[must_use]
    pub fn new(table: Arc<CompiledTable>) -> Self {
        Self(Arc::new(Mutex::new(Set { gates: Vec::new(), table })))
    }

    /// The table that was last put in force; what a gate is to be opened with.
    #[must_use]
    pub fn table(&self) -> Arc<CompiledTable> {
        Arc::clone(&self.lock().table)
    }

    /// Adds a gate that was opened with `table`. If another one is in force by now it gets that.
    ///
    /// # Errors
    ///
    /// If that cannot be published to it. It is added all the same, and filters by `table`.
    pub fn add(&self, mut gate: Gate, table: &Arc<CompiledTable>) -> Result<(), Error> {
        let mut set = self.lock();
        let published = match Arc::ptr_eq(table, &set.table) {
            true => Ok(()),
            false => gate.publish(&set.table),
        };
        set.gates.push(gate);
        published
    }

    /// Puts a table in force on every interface, and on those that are added later.
    ///
    /// # Errors
    ///
    /// The first interface's error. Those before it have the new table then, the
    /// others keep theirs; publishing again is harmless.
    pub fn publish(&self, table: &Arc<CompiledTable>) -> Result<(), Error> {
        let mut set = self.lock();
        set.gates.iter_mut().try_for_each(|gate| gate.publish(table))?;
        set.table = Arc::clone(table);
        Ok(())
    }

    /// Gives every gate the time, in seconds since 1970. See
    /// [`crate::gate::Program::tick`].
    pub fn tick(&self, seconds: u32) {
        self.lock().gates.iter().for_each(|gate| gate.program().tick(seconds));
    }

    /// Looks at every gate.
    pub fn map<T>(&self, look: impl FnMut(&Gate) -> T) -> Vec<T> {
        self.lock().gates.iter().map(look).collect()
    }

    /// An interface has another name now.
    pub fn rename(&self, index: u32, name: &str) {
        let mut set = self.lock();
        if let Some(gate) = set.gates.iter_mut().find(|gate| gate.interface().index == index) {
            name.clone_into(&mut gate.interface.name);
        }
    }

    /// Ends the gate on an interface that is gone, with what is left of its pins. Whether it
    /// is gone the kernel is asked once more: a list of all interfaces may lack one that is
    /// there, if others came and went meanwhile, and that one would lose its filter. Returns
    /// whether the gate has ended.
    ///
    /// # Errors
    ///
    /// If the kernel cannot be asked; the gate stays then.
    pub async fn forget(&self, index: u32) -> Result<bool, Error> {
        if interface::find_index(index).await?.is_some() {
            return Ok(false);
        }
        let Some(gate) = self.remove(index) else { return Ok(false) };
        if let Err(error) = gate.detach() {
            tracing::warn!(index, %error, "cannot remove the pins of an interface that is gone");
        }
        Ok(true)
    }

    fn remove(&self, index: u32) -> Option<Gate> {
        let mut set = self.lock();
        let position = set.gates.iter().position(|gate| gate.interface().index == index)?;
        Some(set.gates.swap_remove(position))
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
            let mut set = self.lock();
            if let Some(gate) = set.gates.iter_mut().find(|gate| gate.interface().index == index) {
                gate.attached = attached;
                answers.push((index, gate.interface().name.clone(), attached));
            }
        }
        Ok(answers)
    }

    /// Takes the gates out, to end them.
    #[must_use]
    pub fn take(&self) -> Vec<Gate> {
        std::mem::take(&mut self.lock().gates)
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        // A panic elsewhere leaves the gates as usable as they were.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The gate: the XDP program on an interface, and the tables it decides from.
//!
//! This is the only module that touches BPF, and with the `ebpf` crate the only
//! one that may be unsafe. It knows interfaces, programs, maps and compiled
//! tables; it does not know where prefixes come from.
//!
//! # What it promises
//!
//! - From the moment a program is attached no packet passes unjudged. Program,
//!   link and maps are pinned ([`pins`]), so that stopping, crashing and
//!   upgrading the agent leave the filter in force.
//! - A packet sees one whole table ([`tables`]). A publish fills the idle half
//!   of a preallocated map and switches to it with one store.
//! - A foreign XDP program is never replaced.
//!
//! # When things fail
//!
//! Opening a gate either succeeds or leaves everything as it was: an adopted
//! filter stays in force with its old program and table, and nothing new is
//! attached. A failed publish leaves the table before it in force. Every
//! [`Error`] says what was tried, on what, and what to do next.

#![allow(
    unsafe_code,
    reason = "memory-mapped maps, membarrier, bpf, an ioctl, the heap and plain-data reads; each use states its reason"
)]

mod batch;
mod error;
mod heap;
pub mod interface;
mod metrics;
mod observe;
pub mod pins;
mod program;
mod set;
mod spare;
pub mod survey;
mod tables;

use std::path::Path;

use aya::programs::links::FdLink;
use exogate_ebpf::compile::CompiledTable;

pub use self::{
    error::Error,
    heap::{bound_heaps, give_back},
    interface::{Interface, XdpAttachment},
    metrics::Metrics,
    observe::{BlockedSource, Count, DropEvent, Events},
    program::{Attach, Mode, Program, works_without_capabilities},
    set::Gates,
    spare::Spares,
};
use crate::gate::pins::Pins;

/// A program attached to one interface, with its tables.
pub struct Gate {
    interface: Interface,
    mode: Mode,
    program: Program,
    pins: Pins,
    adopted: bool,
    attached: bool,
}

/// How to open a [`Gate`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Native or generic XDP, or whichever the driver has.
    pub attach: Attach,
    /// Prefixes that the tables must have room for.
    pub capacity: u32,
    /// Directory on a BPF file system that holds all pins of exogate.
    pub pin_directory: std::path::PathBuf,
}

impl Gate {
    /// Puts the filter on an interface, with `table` in force before the first
    /// packet is judged. A filter that an earlier run left there is adopted: its
    /// maps are kept where they fit, its program is replaced in one step. Where none can
    /// be kept, the program is taken from `spares` if there is one that fits.
    ///
    /// # Errors
    ///
    /// See [`Error`]; nothing has changed then.
    pub async fn open(
        interface: &str,
        options: &Options,
        table: &CompiledTable,
        spares: &mut Spares,
    ) -> Result<Self, Error> {
        let interface = interface::find(interface).await?;
        let pins = Pins::lock(&options.pin_directory, interface.index)?;
        match Self::attach(&interface, &pins, options, table, spares) {
            Ok((mode, program, adopted)) => {
                Ok(Self { interface, mode, program, pins, adopted, attached: true })
            }
            Err(error) => {
                pins.abandon();
                Err(error)
            }
        }
    }

    fn attach(
        interface: &Interface,
        pins: &Pins,
        options: &Options,
        table: &CompiledTable,
        spares: &mut Spares,
    ) -> Result<(Mode, Program, bool), Error> {
        let found = pins.examine(interface)?;
        let capacity = tables::lines_for(options.capacity, Some(table))?;
        let generation = pins.generation(found.as_ref(), capacity)?;
        let mut program = if generation.in_force {
            Program::load_pinned(interface.link_layer, capacity, &generation)?
        } else {
            let program = spares.take(interface.link_layer, capacity)?;
            program.pin_maps(&generation)?;
            program
        };
        program.publish(table)?;
        program.pin_next(&generation)?;
        let (mode, adopted) = match found {
            Some(found) => {
                program.replace(found.link)?;
                warn_of_mode(interface, options.attach, found.mode);
                (found.mode, true)
            }
            None => {
                let (link, mode) = program.attach(interface, options.attach)?;
                pins.keep_link(link)?;
                (mode, false)
            }
        };
        pins.settle(&generation)?;
        Ok((mode, program, adopted))
    }

    /// The interface as it was when the gate was opened, with the name that it has now.
    #[must_use]
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    /// The mode of attachment that was obtained.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether a filter of an earlier run was found in force.
    #[must_use]
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// The program and its maps.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The stream of recorded drops; only the first call gets it.
    ///
    /// # Errors
    ///
    /// If it was taken before.
    pub fn events(&mut self) -> Result<Events, Error> {
        self.program.events()
    }

    /// Puts another table in force.
    ///
    /// # Errors
    ///
    /// If the table does not fit; the one before it stays in force then.
    pub fn publish(&mut self, table: &CompiledTable) -> Result<(), Error> {
        self.program.publish(table)
    }

    /// Whether the filter was attached when [`Gates::verify`] last looked.
    #[must_use]
    pub fn attached(&self) -> bool {
        self.attached
    }

    /// Removes the filter from the interface, with all its pins.
    ///
    /// # Errors
    ///
    /// If a pin cannot be removed.
    pub fn detach(self) -> Result<(), Error> {
        let Self { program, pins, .. } = self;
        pins.remove()?;
        drop(program);
        Ok(())
    }
}

/// Removes the filters of all interfaces below a pin directory, and what dead
/// ones left behind.
///
/// # Errors
///
/// [`Error::Locked`] while an agent runs, or if a pin cannot be removed.
pub fn detach_all(pin_directory: &Path) -> Result<Vec<u32>, Error> {
    let mut detached = Vec::new();
    for index in pins::interfaces(pin_directory)? {
        Pins::lock(pin_directory, index)?.remove()?;
        detached.push(index);
    }
    Ok(detached)
}

/// Whether gates that are opened with this capacity have room for a table.
///
/// # Errors
///
/// [`Error::TableFull`].
pub fn has_room(capacity: u32, table: &CompiledTable) -> Result<(), Error> {
    tables::lines_for(capacity, Some(table)).map(drop)
}

/// An attached filter that was found on an interface.
pub(crate) struct Found {
    link: FdLink,
    mode: Mode,
    program: u32,
}

/// A link cannot change its mode, and a filter is not given up for a better one.
fn warn_of_mode(interface: &Interface, wanted: Attach, mode: Mode) {
    let is_wanted = match wanted {
        Attach::Auto => true,
        Attach::Native => mode == Mode::Native,
        Attach::Generic => mode == Mode::Generic,
    };
    if !is_wanted {
        tracing::warn!(
            interface = interface.name,
            %mode,
            "the filter in force keeps its mode, which is not gate.attach; stop the agent, run \
             `exogate detach`, and start it again"
        );
    }
}

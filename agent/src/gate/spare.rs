//! Programs that are loaded before their interface appears.
//!
//! Most of the time between an interface and its filter is the kernel's verifier, which
//! walks through the program once for each set of maps. What can be done before is done
//! before: a spare is a verified program with empty maps, which nothing but the process
//! holds. To put it on an interface means to pin it, fill it and attach it.
//!
//! There are a few for each kind of interface that may come: Ethernet, and the other kind
//! once there was one. Of more interfaces that appear at once, the first get them and the
//! others wait for the verifier, each for one more walk.
//!
//! A spare that cannot be made is missed by nobody: the program is loaded when the interface
//! is there, and what went wrong is told then.

use exogate_ebpf::packet::LinkLayer;

use crate::gate::{Error, Options, Program, tables};

/// Programs of a kind that wait. Each takes as much of the kernel's memory as an interface, 20 MB
/// as `gate.capacity` is by default.
const OF_A_KIND: usize = 2;
/// Lines of tables from which on one has to do.
const MANY_LINES: u32 = 1 << 19;

/// The programs that wait for an interface; none as long as none was prepared.
pub struct Spares {
    programs: Vec<Program>,
    /// The kinds of interface that are expected.
    expected: Vec<LinkLayer>,
}

impl Default for Spares {
    fn default() -> Self {
        Self { programs: Vec::new(), expected: vec![LinkLayer::Ethernet] }
    }
}

impl Spares {
    /// Loads one of those that are missing, and says whether there was one. Takes as long as
    /// the verifier does, and the capabilities that loading needs.
    pub fn prepare(&mut self, options: &Options) -> bool {
        self.try_prepare(options).unwrap_or_else(|error| {
            tracing::debug!(%error, "no program waits for the next interface");
            false
        })
    }

    fn try_prepare(&mut self, options: &Options) -> Result<bool, Error> {
        let lines = tables::lines_for(options.capacity, None)?;
        // The capacity may be another one than the last time.
        self.programs.retain(|spare| self.expected.iter().any(|kind| spare.fits(*kind, lines)));
        let waiting = |kind| self.programs.iter().filter(|spare| spare.fits(kind, lines)).count();
        let fewest = self.expected.iter().copied().min_by_key(|kind| waiting(*kind));
        let most = if lines > MANY_LINES { 1 } else { OF_A_KIND };
        let Some(kind) = fewest.filter(|kind| waiting(*kind) < most) else {
            return Ok(false);
        };
        self.programs.push(Program::load_new(kind, lines)?);
        Ok(true)
    }

    /// A program with maps of its own: a spare, or one that is loaded now.
    pub(super) fn take(&mut self, link_layer: LinkLayer, lines: u32) -> Result<Program, Error> {
        if !self.expected.contains(&link_layer) {
            self.expected.push(link_layer);
        }
        match self.programs.iter().position(|spare| spare.fits(link_layer, lines)) {
            Some(spare) => Ok(self.programs.swap_remove(spare)),
            None => Program::load_new(link_layer, lines).or_else(|error| {
                // Those that wait for others take memory that is needed now.
                if self.programs.is_empty() {
                    return Err(error);
                }
                self.programs.clear();
                Program::load_new(link_layer, lines)
            }),
        }
    }
}

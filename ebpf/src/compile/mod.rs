//! Builds the table that [`crate::table`] reads. Host only.
//!
//! Compilation is a pure function of the policy, so that the hash of a table
//! identifies a policy and a table can be checked before it is published. It
//! takes time in proportion to n log n for n prefixes. What the table takes in
//! memory is for [`lines_for`] to say.

mod intervals;
mod level;

use std::{collections::BTreeMap, net::IpAddr};

use self::{
    intervals::{Boundary, intervals, spans},
    level::{Level, LowLevel, MIN_KEYS_PER_DIRECTORY_LINE},
};
use crate::{
    abi::{DIRECTORY, Head, Line, PORTS},
    packet::{TCP, UDP},
    table::{
        Entry, MAX_DIRECTORIES, MAX_GUARDS, MAX_NODES, MAX_SOURCES, Table, WIDE_NODE_INTERVALS,
        flag,
    },
};

/// A prefix and the sources that contain it. Host bits are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Any address of the prefix.
    pub address: IpAddr,
    /// Length in bits, at most 32 or 128.
    pub length: u8,
    /// The sources, one bit each, below [`MAX_SOURCES`].
    pub sources: u32,
}

/// A guarded protocol and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
    /// The accepted sources, one bit each.
    pub sources: u32,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

/// All that one table says.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Drop what is refused, instead of only counting it.
    pub enforce: bool,
    /// Until when, in nanoseconds of the clock that counts from the boot; `None` for no end.
    pub deadline: Option<u64>,
    /// The addresses that the guards protect, as prefixes; `None` for all.
    pub destinations: Option<Vec<(IpAddr, u8)>>,
    /// The allow-list.
    pub prefixes: Vec<Prefix>,
    /// The guards. Of two on the same protocol and port the later one counts.
    pub guards: Vec<Guard>,
}

/// Why a policy cannot be compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// A prefix longer than its address.
    PrefixLength {
        /// The length.
        length: u8,
    },
    /// A source bit at or above [`MAX_SOURCES`].
    SourceBit {
        /// The mask.
        sources: u32,
    },
    /// More different source masks among the guards than [`MAX_GUARDS`].
    TooManyGuards,
    /// More interval boundaries than [`MAX_NODES`] can hold.
    TooManyIntervals,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::PrefixLength { length } => {
                write!(f, "prefix length /{length} is longer than the address")
            }
            Self::SourceBit { sources } => {
                write!(
                    f,
                    "source mask {sources:#x} has bits above the {MAX_SOURCES} that a table holds"
                )
            }
            Self::TooManyGuards => {
                write!(f, "more than {MAX_GUARDS} guards with different sources")
            }
            Self::TooManyIntervals => {
                write!(
                    f,
                    "the prefixes cut the address space into more intervals than {MAX_NODES} nodes hold"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// A compiled policy: what the kernel reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledTable {
    /// Its head, for a table that begins at line 0.
    pub head: Box<Head>,
    /// Its lines: nodes and finer directories.
    pub lines: Vec<Line>,
}

impl CompiledTable {
    /// The table, to look things up in.
    #[must_use]
    pub fn table(&self) -> Table<'_, [Line]> {
        Table::new(&self.lines, &self.head)
    }
}

/// Compiles a policy.
///
/// # Errors
///
/// [`Error`] if the policy does not fit the layout.
pub fn compile(policy: &Policy) -> Result<CompiledTable, Error> {
    let mut builder = Builder::new(policy)?;
    let (v4, v6) = spans(policy)?;
    builder.v4(&intervals(v4, u128::from(u32::MAX)))?;
    builder.v6(&intervals(v6, u128::MAX))?;
    Ok(builder.finish())
}

/// Lines that suffice for a table of so many prefixes, whatever they are.
///
/// The worst case is IPv6 prefixes longer than /64: two keys of the first level
/// for each, and a node of the second. Where all of them lie outside global
/// unicast, one window spans the first level, which is then as long as a power of
/// two. Finer directories come on top, a level of them for every
/// key and as many levels as there can be.
#[must_use]
#[allow(clippy::arithmetic_side_effects, reason = "far below 2^64 for any u32")]
pub fn lines_for(prefixes: u32) -> u32 {
    let keys = 2 * u64::from(prefixes) + 1;
    let first = keys.div_ceil(WIDE_NODE_INTERVALS as u64).next_power_of_two();
    // And a node each for the levels that are empty.
    let second = u64::from(prefixes) + 2;
    let directories = u64::from(MAX_DIRECTORIES) * keys.div_ceil(MIN_KEYS_PER_DIRECTORY_LINE);
    u32::try_from(first + second + directories).unwrap_or(u32::MAX)
}

/// A table as it grows.
struct Builder {
    head: Box<Head>,
    lines: Vec<Line>,
}

#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "all sizes are bounded by MAX_NODES (checked in `Level`) and the fixed layout; this code sees no outside data but through `spans`"
)]
impl Builder {
    fn new(policy: &Policy) -> Result<Self, Error> {
        // SAFETY: any bytes are a Head, zeros among them. It is too large for a stack.
        let head = unsafe { Box::<Head>::new_zeroed().assume_init() };
        let mut builder = Self { head, lines: Vec::new() };
        if policy.enforce {
            builder.head.flags |= flag::ENFORCE;
        }
        // The first nanosecond is as much in the past as the one before.
        builder.head.deadline = policy.deadline.map_or(0, |deadline| deadline.max(1));
        if policy.destinations.is_some() {
            builder.head.flags |= flag::DESTINATIONS;
        }
        builder.guards(&policy.guards)?;
        Ok(builder)
    }

    fn guards(&mut self, guards: &[Guard]) -> Result<(), Error> {
        // By port, so that a guard that a later one replaces leaves no trace.
        let mut by_port = BTreeMap::new();
        for guard in guards {
            if guard.sources >> MAX_SOURCES != 0 {
                return Err(Error::SourceBit { sources: guard.sources });
            }
            by_port.insert((guard.protocol, guard.port), guard.sources);
        }
        let mut masks: Vec<u32> = Vec::new();
        for ((protocol, port), sources) in by_port {
            self.head.guards[0] |= sources;
            let number = masks.iter().position(|&mask| mask == sources).unwrap_or_else(|| {
                masks.push(sources);
                masks.len() - 1
            }) + 1;
            if number > MAX_GUARDS as usize {
                return Err(Error::TooManyGuards);
            }
            self.head.guards[number] = sources;
            let first = match protocol {
                Protocol::Tcp => 0,
                Protocol::Udp => PORTS,
            };
            self.head.ports[first + usize::from(port)] = number as u8;
        }
        Ok(())
    }

    fn v4(&mut self, boundaries: &[Boundary]) -> Result<(), Error> {
        let keys = boundaries.iter().map(|boundary| boundary.first as u64).collect();
        let values = boundaries.iter().map(|boundary| Entry::mask(boundary.mask)).collect();
        let mut level = Level::narrow(keys, values)?;
        let width = directory_width(boundaries.len());
        self.head.v4_shift = 32 - width;
        fill(&mut self.head.v4_directory, level.directory(0, 32, width));
        self.head.v4_nodes = self.section(level.lines());
        self.head.v4_directories = self.section(level.directory_lines()?);
        Ok(())
    }

    fn v6(&mut self, boundaries: &[Boundary]) -> Result<(), Error> {
        const FIRST: u64 = 1 << 61;
        const END: u64 = 2 << 61;
        let (mut level, low) = levels(boundaries)?;
        self.head.v6_below = level.entry(0, FIRST - 1).0;
        self.head.v6_above = level.entry(END, u64::MAX).0;
        let width = directory_width(boundaries.len());
        self.head.v6_shift = 64 - width;
        fill(&mut self.head.v6_directory, level.directory(FIRST, 61, width));
        self.head.v6_nodes = self.section(level.lines());
        self.head.v6_directories = self.section(level.directory_lines()?);
        self.head.v6_low_nodes = self.section(low.finish()?.lines());
        Ok(())
    }

    /// Appends lines and returns the place of the first.
    fn section(&mut self, lines: Vec<Line>) -> u32 {
        let at = self.lines.len();
        self.lines.extend(lines);
        at as u32
    }

    fn finish(mut self) -> CompiledTable {
        self.head.lines = self.lines.len() as u32;
        CompiledTable { head: self.head, lines: self.lines }
    }
}

/// The width of a directory for so many boundaries: few blocks hold one of them then, and
/// the directory of a short list lies in the nearest cache whatever addresses come.
fn directory_width(boundaries: usize) -> u32 {
    const BLOCKS_PER_BOUNDARY: usize = 64;
    let blocks = boundaries.saturating_mul(BLOCKS_PER_BOUNDARY);
    blocks.clamp(2, DIRECTORY).next_power_of_two().trailing_zeros()
}

/// Writes entries to the beginning of a directory that is in its place already: what a short
/// list does not use of it then takes no memory.
fn fill(directory: &mut [u32; DIRECTORY], entries: impl IntoIterator<Item = Entry>) {
    for (place, entry) in directory.iter_mut().zip(entries) {
        *place = entry.0;
    }
}

/// Splits IPv6 intervals into a level of upper halves and one of lower halves.
#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "keys ascend, so that one above another can be decremented and the other incremented"
)]
fn levels(boundaries: &[Boundary]) -> Result<(Level, LowLevel), Error> {
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let mut low = LowLevel::default();
    // What applies at the end of the block before, and whether that was cut and so
    // applies to none behind it.
    let mut carried = 0;
    let mut cut: Option<u64> = None;
    for block in boundaries.chunk_by(|a, b| a.first >> 64 == b.first >> 64) {
        let Some((first, last)) = block.first().zip(block.last()) else { continue };
        let high = (first.first >> 64) as u64;
        if let Some(before) = cut.filter(|&before| before < high - 1) {
            keys.push(before + 1);
            values.push(Entry::mask(carried));
        }
        keys.push(high);
        let whole = last.first as u64 == 0;
        cut = (!whole).then_some(high);
        values.push(if whole {
            Entry::mask(last.mask)
        } else {
            let start = (first.first as u64 != 0).then_some((0, carried));
            let cuts = block.iter().map(|boundary| (boundary.first as u64, boundary.mask));
            low.block(start.into_iter().chain(cuts))
        });
        carried = last.mask;
    }
    if let Some(before) = cut.filter(|&before| before < u64::MAX) {
        keys.push(before + 1);
        values.push(Entry::mask(carried));
    }
    Ok((Level::wide(keys, values)?, low))
}

#[cfg(test)]
mod tests;

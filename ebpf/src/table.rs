//! The compiled policy: which sources contain an address, which guard stands on
//! a port.
//!
//! # Layout
//!
//! A table is a run of [`Line`]s without pointers. Its first line is the header
//! ([`header`]), then the masks of the guards, the guard of every port, and for
//! each family an *interval index*:
//!
//! - the address space is cut at every prefix boundary into adjoining intervals;
//!   `keys` holds their first addresses, sorted, `values` what applies to them;
//! - a `directory`, indexed by the leading bits of the address, says for each
//!   block either what applies to the whole of it or which few keys to search.
//!
//! What applies is always an [`Entry`]: a mask of sources, or a run of keys to
//! search next. IPv4 needs one level of 32-bit keys. IPv6 keys are the upper 64
//! bits of the address; where prefixes longer than /64 cut a block, its value is
//! a run of a second level, keyed by the lower 64 bits.
//!
//! The IPv6 directory covers 2000::/3, all there is of global unicast (RFC
//! 4291); the addresses below and above have a run each.
//!
//! A run is searched by halving a window of 2^n keys. The window may reach
//! beyond the run: the keys there are larger than any address of the block, so
//! they never match. The compiler of the table pads accordingly.

use crate::{
    abi::{LINE_WORDS, Line},
    opaque::opaque,
    packet::{Address, TCP},
    verdict::Action,
};

/// Where a [`Table`] gets its lines from.
pub trait Lines {
    /// The line at `index`, counted from the start of the map.
    fn line(&self, index: u32) -> Option<&Line>;
}

impl Lines for [Line] {
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.get(index as usize)
    }
}

/// What applies to a range of addresses: a mask of sources, or a run of keys to
/// search.
///
/// Bit 31 tells which. A mask has [`MAX_SOURCES`] source bits and
/// [`Entry::DESTINATION`]. A run has the binary logarithm of its window in bits
/// 26 to 30 and its first key in bits 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u32);

/// Sources that one table can tell apart.
pub const MAX_SOURCES: u32 = 30;
/// Keys that one level of one family can hold.
pub const MAX_KEYS: u32 = 1 << MAX_STEPS;
/// The longest window is 2 to this power: every key of a level.
pub const MAX_STEPS: u32 = 24;
/// Guards with different sources that one table can tell apart.
pub const MAX_GUARDS: u32 = 255;

impl Entry {
    /// Set in the mask of addresses that the guards protect, where not all are.
    pub const DESTINATION: u32 = 1 << 30;
    const RUN: u32 = 1 << 31;

    /// An entry that is a mask.
    #[must_use]
    pub const fn mask(mask: u32) -> Self {
        Self(mask & !Self::RUN)
    }

    /// An entry that is a run of 2^`steps` keys from `start` on.
    #[must_use]
    pub const fn run(start: u32, steps: u32) -> Self {
        Self(Self::RUN | (steps & 31) << 26 | (start & (MAX_KEYS - 1)))
    }

    /// Whether this is a run.
    #[inline(always)]
    #[must_use]
    pub const fn is_run(self) -> bool {
        self.0 & Self::RUN != 0
    }

    #[inline(always)]
    const fn start(self) -> u32 {
        self.0 & (MAX_KEYS - 1)
    }

    #[inline(always)]
    const fn window(self) -> u32 {
        1u32.wrapping_shl(self.0 >> 26 & 31)
    }
}

/// Word offsets of the fields in the first line of a table. Fields that hold
/// places are offsets from the start of the table, in units of what they point
/// to: `*_KEYS` of IPv6 in 64-bit words, all others in 32-bit words.
pub mod header {
    /// Bits of [`super::flag`].
    pub const FLAGS: u32 = 0;
    /// Union of the masks of all guards.
    pub const ANY_GUARD: u32 = 1;
    /// Right shift that turns an IPv4 address into a directory index.
    pub const V4_SHIFT: u32 = 2;
    /// IPv4 directory.
    pub const V4_DIRECTORY: u32 = 3;
    /// IPv4 keys.
    pub const V4_KEYS: u32 = 4;
    /// IPv4 values.
    pub const V4_VALUES: u32 = 5;
    /// Right shift that turns the upper half of an address in 2000::/3, less its
    /// first three bits, into a directory index.
    pub const V6_SHIFT: u32 = 6;
    /// IPv6 directory.
    pub const V6_DIRECTORY: u32 = 7;
    /// IPv6 keys, upper halves.
    pub const V6_KEYS: u32 = 8;
    /// IPv6 values.
    pub const V6_VALUES: u32 = 9;
    /// Entry for addresses below 2000::/3.
    pub const V6_BELOW: u32 = 10;
    /// Entry for addresses above 2000::/3.
    pub const V6_ABOVE: u32 = 11;
    /// IPv6 keys of the second level, lower halves.
    pub const V6_LOW_KEYS: u32 = 12;
    /// IPv6 values of the second level.
    pub const V6_LOW_VALUES: u32 = 13;
    /// Lines that the table occupies, for user space.
    pub const LINES: u32 = 14;
}

/// Bits of [`header::FLAGS`].
pub mod flag {
    /// Refused packets are dropped, not only counted.
    pub const ENFORCE: u32 = 1;
    /// Only addresses with [`super::Entry::DESTINATION`] are guarded.
    pub const DESTINATIONS: u32 = 2;
}

/// First line of the guards' masks; mask `n` is 32-bit word `n` from there.
pub const GUARDS_LINE: u32 = 1;
/// First line of the guards of ports: for TCP, then UDP, one byte per port, 0
/// for none.
pub const PORTS_LINE: u32 = GUARDS_LINE + (MAX_GUARDS + 1) / LINE_WORDS as u32;
/// First line behind the fixed part of a table.
pub const INDEX_LINE: u32 = PORTS_LINE + 2 * PORT_LINES;
/// Lines for the ports of one protocol.
pub const PORT_LINES: u32 = 65_536 / 64;

/// A table in place.
pub struct Table<'a, L: ?Sized> {
    lines: &'a L,
    base: u32,
    header: &'a Line,
}

// A lookup that leaves the map finds no line and answers 0: no source, so that
// a damaged table refuses. The arithmetic wraps for the same reason.
impl<'a, L: Lines + ?Sized> Table<'a, L> {
    /// The table whose first line is `base`; `None` if it lies outside.
    #[inline(always)]
    pub fn at(lines: &'a L, base: u32) -> Option<Self> {
        Some(Self { lines, base, header: lines.line(base)? })
    }

    /// The mask of sources that the guard on a port accepts; `None` without a
    /// guard.
    #[inline(always)]
    #[must_use]
    pub fn guard(&self, protocol: u8, port: u16) -> Option<u32> {
        let first = if protocol == TCP { PORTS_LINE } else { PORTS_LINE + PORT_LINES };
        let line =
            self.lines.line(self.base.wrapping_add(first).wrapping_add(u32::from(port) >> 6))?;
        let guard = line.word(u32::from(port) >> 2) >> ((port & 3) << 3) & 0xff;
        if guard == 0 {
            return None;
        }
        let line = self.lines.line(self.base.wrapping_add(GUARDS_LINE).wrapping_add(guard >> 4))?;
        Some(line.word(guard))
    }

    /// The union of the masks of all guards.
    #[inline(always)]
    #[must_use]
    pub fn any_guard(&self) -> u32 {
        self.header.word(header::ANY_GUARD)
    }

    /// What happens to refused packets.
    #[inline(always)]
    #[must_use]
    pub fn refusal(&self) -> Action {
        if self.header.word(header::FLAGS) & flag::ENFORCE != 0 {
            Action::Drop
        } else {
            Action::WouldDrop
        }
    }

    /// Whether only some destination addresses are guarded.
    #[inline(always)]
    #[must_use]
    pub fn restricts_destinations(&self) -> bool {
        self.header.word(header::FLAGS) & flag::DESTINATIONS != 0
    }

    /// Whether the address is guarded, where not all are.
    #[inline(never)]
    #[must_use]
    pub fn is_destination(&self, address: &Address) -> bool {
        self.sources(address) & Entry::DESTINATION != 0
    }

    /// The mask of the sources that contain the address, with
    /// [`Entry::DESTINATION`].
    #[inline(always)]
    #[must_use]
    pub fn sources(&self, address: &Address) -> u32 {
        let entry = match *address {
            Address::V4(address) => self.v4(address),
            Address::V6(high, low) => self.v6(high, low),
        };
        // Only a damaged table ends in a run.
        if entry.is_run() { 0 } else { entry.0 }
    }

    #[inline(always)]
    fn v4(&self, address: u32) -> Entry {
        let block = address.wrapping_shr(self.header.word(header::V4_SHIFT));
        let entry = self.entry(self.header.word(header::V4_DIRECTORY).wrapping_add(block));
        if !entry.is_run() {
            return entry;
        }
        let keys = self.header.word(header::V4_KEYS);
        let position = search(entry, |at| {
            let index = keys.wrapping_add(at);
            let key = self.line_of::<4>(index).word(index);
            less(u64::from(address), u64::from(key))
        });
        self.entry(self.header.word(header::V4_VALUES).wrapping_add(position))
    }

    #[inline(always)]
    fn v6(&self, high: u64, low: u64) -> Entry {
        let entry = match high >> 61 {
            0 => Entry(self.header.word(header::V6_BELOW)),
            1 => {
                let block =
                    (high & (u64::MAX >> 3)).wrapping_shr(self.header.word(header::V6_SHIFT));
                self.entry(self.header.word(header::V6_DIRECTORY).wrapping_add(block as u32))
            }
            _ => Entry(self.header.word(header::V6_ABOVE)),
        };
        if !entry.is_run() {
            return entry;
        }
        let position = self.search64(entry, header::V6_KEYS, high);
        let entry = self.entry(self.header.word(header::V6_VALUES).wrapping_add(position));
        if !entry.is_run() {
            return entry;
        }
        let position = self.search64(entry, header::V6_LOW_KEYS, low);
        self.entry(self.header.word(header::V6_LOW_VALUES).wrapping_add(position))
    }

    #[inline(always)]
    fn search64(&self, run: Entry, keys: u32, target: u64) -> u32 {
        let keys = self.header.word(keys);
        search(run, |at| {
            let index = keys.wrapping_add(at);
            less(target, self.line_of::<3>(index).double(index))
        })
    }

    #[inline(always)]
    fn entry(&self, index: u32) -> Entry {
        Entry(self.line_of::<4>(index).word(index))
    }

    /// The line that holds item `index` where a line holds 2^`PER_LINE` items.
    #[inline(always)]
    fn line_of<const PER_LINE: u32>(&self, index: u32) -> &Line {
        const OUTSIDE: &Line = &Line([0; LINE_WORDS]);
        match self.lines.line(self.base.wrapping_add(index >> PER_LINE)) {
            Some(line) => line,
            None => OUTSIDE,
        }
    }
}

/// The last position in the run whose key is not above the target; `below` says,
/// as all ones or zero, whether the target is below the key at a position.
#[inline(always)]
fn search(run: Entry, below: impl Fn(u32) -> u32) -> u32 {
    let mut position = run.start();
    let mut step = run.window() >> 1;
    // A fixed bound, so that the kernel's verifier sees the end.
    for _ in 0..MAX_STEPS {
        if step == 0 {
            break;
        }
        position = position.wrapping_add(step & !below(position.wrapping_add(step)));
        step >>= 1;
    }
    position
}

/// All ones if `a < b`, else zero, without a branch: with a branch per step the
/// verifier would have to follow every path through the search.
#[inline(always)]
fn less(a: u64, b: u64) -> u32 {
    // The borrow of a - b.
    let borrow = opaque((!a & b) | ((!a | b) & a.wrapping_sub(b)));
    ((borrow as i64) >> 63) as u32
}

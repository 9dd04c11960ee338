//! The compiled policy: which sources contain an address, which guard stands on
//! a port.
//!
//! # Layout
//!
//! A table is a [`Head`] of fixed size and a run of [`Line`]s, without pointers. The
//! head says which guard stands on each port, and begins for each family an
//! *interval index*:
//!
//! - the address space is cut at every prefix boundary into adjoining intervals,
//!   each with the mask of the sources that contain it;
//! - *nodes* of one line hold the first addresses (keys) of a few neighbouring
//!   intervals and what applies to each; they follow each other in order;
//! - a *directory*, indexed by the leading bits of the address, says for each
//!   block either what applies to the whole of it or which few nodes to search.
//!
//! - a *finer directory* does the same for a block that many prefixes crowd into. It
//!   spans what lies between the first and the last of its boundaries, in smaller
//!   blocks; its first entry is for what lies below, its last for what lies above.
//!
//! What applies is always an [`Entry`]: a mask of sources, a finer directory, or a run
//! of nodes to search next. IPv4 needs one level of 32-bit keys, eight to a node. IPv6 keys
//! are the upper 64 bits of the address, four to a node; where prefixes longer
//! than /64 cut a block, its value is a run of a second level, keyed by the lower
//! 64 bits.
//!
//! The IPv6 directory covers 2000::/3, all there is of global unicast (RFC
//! 4291); the addresses below and above have a run each.
//!
//! A run is searched by halving a window of 2^n nodes, then within the node. The
//! window may reach beyond the run: the keys there are larger than any address of
//! the block, so they never match. The compiler of the table pads accordingly.

use core::hint::cold_path;

use crate::{
    abi::{DIRECTORY, GUARDS, Head, LINE_WORDS, Line, PORTS},
    opaque::{masked, opaque},
    packet::{Address, TCP, UDP},
    verdict::{Action, Verdict},
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

/// What applies to a range of addresses: a mask of sources, a run of nodes to
/// search, or a finer directory.
///
/// Without bit 31 it is a mask, which has [`MAX_SOURCES`] source bits and
/// [`Entry::DESTINATION`]. With it, bit 30 tells a directory, whose first line is in
/// the bits below, from a run, which has the binary logarithm of its window in bits
/// 25 to 29 and its first node in the bits below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u32);

/// Sources that one table can tell apart.
pub const MAX_SOURCES: u32 = 30;
/// The longest window is 2 to this power: every node of a level.
pub const MAX_STEPS: u32 = 22;
/// Nodes that one level of one family can hold.
pub const MAX_NODES: u32 = 1 << MAX_STEPS;
/// Guards with different sources that one table can tell apart.
pub const MAX_GUARDS: u32 = GUARDS as u32 - 1;
/// Finer directories that follow each other at most.
pub const MAX_DIRECTORIES: u32 = 2;
/// Words at the head of a finer directory: the number of the block that its second
/// entry stands for, less one (two words); the bits of an address behind a block's
/// number; the place of its last entry.
pub const DIRECTORY_HEAD: u32 = 4;
/// Intervals in a node with 32-bit keys: eight keys, then eight values.
pub const NODE_INTERVALS: usize = 8;
/// Intervals in a node with 64-bit keys: four keys, then four values, then
/// nothing.
pub const WIDE_NODE_INTERVALS: usize = 4;

impl Entry {
    /// Set in the mask of addresses that the guards protect, where not all are.
    pub const DESTINATION: u32 = 1 << 30;
    /// No source: what a damaged table says, whose place leads out of the map.
    const NOTHING: Self = Self(0);
    const PLACE: u32 = 1 << 31;
    const DIRECTORY: u32 = 1 << 30;

    /// An entry that is a mask.
    #[must_use]
    pub const fn mask(mask: u32) -> Self {
        Self(mask & !Self::PLACE)
    }

    /// An entry that is a run of 2^`steps` nodes from `start` on.
    #[must_use]
    pub const fn run(start: u32, steps: u32) -> Self {
        Self(Self::PLACE | (steps & 31) << 25 | (start & (MAX_NODES - 1)))
    }

    /// An entry that is a directory from line `start` on.
    #[must_use]
    pub const fn directory(start: u32) -> Self {
        Self(Self::PLACE | Self::DIRECTORY | (start & (MAX_NODES - 1)))
    }

    /// Whether this is a mask, and no place to look further.
    #[inline(always)]
    #[must_use]
    pub const fn is_mask(self) -> bool {
        self.0 & Self::PLACE == 0
    }

    /// Its mask. Only a damaged table ends elsewhere, and contains nothing then.
    #[inline(always)]
    const fn or_nothing(self) -> u32 {
        if self.is_mask() { self.0 } else { 0 }
    }

    #[inline(always)]
    const fn is_directory(self) -> bool {
        self.0 & Self::DIRECTORY != 0
    }

    #[inline(always)]
    const fn start(self) -> u32 {
        self.0 & (MAX_NODES - 1)
    }

    #[inline(always)]
    const fn window(self) -> u32 {
        1u32.wrapping_shl(self.0 >> 25 & 31)
    }
}

/// Bits of [`Head::flags`].
pub mod flag {
    /// Refused packets are dropped, not only counted.
    pub const ENFORCE: u32 = 1;
    /// Only addresses with [`super::Entry::DESTINATION`] are guarded.
    pub const DESTINATIONS: u32 = 2;
}

/// A table in place.
pub struct Table<'a, L: ?Sized> {
    lines: &'a L,
    head: &'a Head,
}

// A lookup that leaves the map finds no line and answers 0: no source, so that
// a damaged table refuses. The arithmetic wraps for the same reason.
impl<'a, L: Lines + ?Sized> Table<'a, L> {
    /// The table that a head begins.
    #[inline(always)]
    pub const fn new(lines: &'a L, head: &'a Head) -> Self {
        Self { lines, head }
    }

    /// The mask of sources that the guard on a port accepts; `None` without a
    /// guard.
    #[inline(always)]
    #[must_use]
    pub fn guard(&self, protocol: u8, port: u16) -> Option<u32> {
        // The fifth bit tells the two apart, and becomes the place of UDP's ports.
        const { assert!(TCP & 16 == 0 && UDP & 16 != 0 && PORTS == 16 << 12) }
        let place = u64::from(protocol & 16) << 12 | u64::from(port);
        let place = masked::<{ 2 * PORTS as u32 - 1 }>(place);
        // SAFETY: the masked number is below 2 * PORTS.
        let guard = unsafe { *self.head.ports.get_unchecked(place) };
        // SAFETY: eight bits are below GUARDS.
        let mask = unsafe { *self.head.guards.get_unchecked(usize::from(guard)) };
        if guard == 0 { None } else { Some(mask) }
    }

    /// The union of the masks of all guards.
    #[inline(always)]
    #[must_use]
    pub fn any_guard(&self) -> u32 {
        let [any, ..] = self.head.guards;
        any
    }

    /// What happens to refused packets, before the deadline.
    #[inline(always)]
    #[must_use]
    pub fn refusal(&self) -> Action {
        if self.head.flags & flag::ENFORCE != 0 { Action::Drop } else { Action::WouldDrop }
    }

    /// What a verdict has become by now: after the deadline nothing is dropped any more. The
    /// clock, in nanoseconds since the boot, is asked only if that makes a difference.
    #[inline(always)]
    #[must_use]
    pub fn by_now(&self, verdict: Verdict, clock: impl FnOnce() -> u64) -> Verdict {
        if self.head.deadline != 0 && verdict.action() == Action::Drop {
            cold_path();
            if clock() >= self.head.deadline {
                return verdict.with(Action::WouldDrop);
            }
        }
        verdict
    }

    /// Whether only some destination addresses are guarded.
    #[inline(always)]
    #[must_use]
    pub fn restricts_destinations(&self) -> bool {
        self.head.flags & flag::DESTINATIONS != 0
    }

    /// Whether the address is guarded, where not all are.
    #[inline(always)]
    #[must_use]
    pub fn is_destination(&self, address: &Address) -> bool {
        self.sources_out_of_line(address) & Entry::DESTINATION != 0
    }

    /// [`Table::sources`] where speed does not matter: the kernel's verifier walks
    /// the lookup for each place that it stands in.
    #[inline(never)]
    #[must_use]
    pub fn sources_out_of_line(&self, address: &Address) -> u32 {
        self.sources(address)
    }

    /// The mask of the sources that contain the address, with
    /// [`Entry::DESTINATION`].
    #[inline(always)]
    #[must_use]
    pub fn sources(&self, address: &Address) -> u32 {
        // Most sources that are on no list end in the directory.
        match *address {
            Address::V4(address) => {
                let entry = self.v4_block(address);
                if entry.is_mask() { entry.0 } else { self.v4(entry, address).or_nothing() }
            }
            Address::V6(high, low) => {
                let entry = self.v6_block(high);
                if entry.is_mask() { entry.0 } else { self.v6(entry, high, low).or_nothing() }
            }
        }
    }

    /// What the directory says of an address.
    #[inline(always)]
    fn v4_block(&self, address: u32) -> Entry {
        let block = address.wrapping_shr(self.head.v4_shift);
        let block = masked::<{ DIRECTORY as u32 - 1 }>(u64::from(block));
        // SAFETY: the masked number is below DIRECTORY.
        Entry(unsafe { *self.head.v4_directory.get_unchecked(block) })
    }

    /// What applies to an address where the directory says where to look further.
    #[inline(always)]
    fn v4(&self, entry: Entry, address: u32) -> Entry {
        let entry = self.finer(entry, self.head.v4_directories, u64::from(address));
        if entry.is_mask() {
            return entry;
        }
        let nodes = self.head.v4_nodes;
        let place = descend(entry, |node| {
            Some(less(address, self.line(nodes.wrapping_add(node))?.word::<0>()))
        });
        let Some(node) = place.and_then(|place| self.line(nodes.wrapping_add(place))) else {
            return Entry::NOTHING;
        };
        let mut at = 4 & !less(address, node.word::<4>());
        at |= 2 & !less(address, node.word_at(at | 2));
        at |= 1 & !less(address, node.word_at(at | 1));
        Entry(node.word_at(8 | at))
    }

    /// [`Table::v4_block`] by the upper half of an address.
    #[inline(always)]
    fn v6_block(&self, high: u64) -> Entry {
        match high >> 61 {
            0 => Entry(self.head.v6_below),
            1 => {
                let block = (high << 3).wrapping_shr(self.head.v6_shift);
                let block = masked::<{ DIRECTORY as u32 - 1 }>(block);
                // SAFETY: the masked number is below DIRECTORY.
                Entry(unsafe { *self.head.v6_directory.get_unchecked(block) })
            }
            _ => Entry(self.head.v6_above),
        }
    }

    /// [`Table::v4`] for the two halves of an address.
    #[inline(always)]
    fn v6(&self, entry: Entry, high: u64, low: u64) -> Entry {
        let entry = self.finer(entry, self.head.v6_directories, high);
        if entry.is_mask() {
            return entry;
        }
        let entry = self.wide(entry, self.head.v6_nodes, high);
        if entry.is_mask() {
            return entry;
        }
        self.wide(entry, self.head.v6_low_nodes, low)
    }

    /// What the finer directories say of a key, if the entry is one; else the entry.
    #[inline(always)]
    fn finer(&self, mut entry: Entry, directories: u32, key: u64) -> Entry {
        for _ in 0..MAX_DIRECTORIES {
            if entry.is_mask() || !entry.is_directory() {
                break;
            }
            let at = directories.wrapping_add(entry.start());
            let Some(line) = self.line(at) else { return Entry::NOTHING };
            let last = u64::from(line.word::<3>());
            let mut place = key.wrapping_shr(line.word::<2>()).wrapping_sub(line.double::<0>());
            if place > last {
                // Below the first block or above the last one.
                place = last & !opaque(((place as i64) >> 63) as u64);
            }
            let place = (place as u32).wrapping_add(DIRECTORY_HEAD);
            let line = self.line(at.wrapping_add(place >> LINE_WORDS.trailing_zeros()));
            let Some(line) = line else { return Entry::NOTHING };
            entry = Entry(line.word_at(place));
        }
        entry
    }

    /// What applies to a 64-bit key in a run of nodes.
    #[inline(always)]
    fn wide(&self, run: Entry, nodes: u32, key: u64) -> Entry {
        let place = descend(run, |node| {
            Some(below(key, self.line(nodes.wrapping_add(node))?.double::<0>()))
        });
        let Some(node) = place.and_then(|place| self.line(nodes.wrapping_add(place))) else {
            return Entry::NOTHING;
        };
        let mut at = 2 & !below(key, node.double::<2>());
        at |= 1 & !below(key, node.double_at(at | 1));
        Entry(node.word_at(8 | at))
    }

    /// A line of this table. Without one a lookup ends at once: with an empty line in its
    /// place the kernel's verifier would walk on with either.
    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Line> {
        self.lines.line(self.head.base.wrapping_add(index))
    }
}

/// The last node of a run whose first key is not above the target; `below` says,
/// as all ones or zero, whether the target is below that of a node.
#[inline(always)]
fn descend(run: Entry, below: impl Fn(u32) -> Option<u32>) -> Option<u32> {
    let mut place = run.start();
    let mut step = run.window() >> 1;
    // A fixed bound, so that the kernel's verifier sees the end.
    for _ in 0..MAX_STEPS {
        if step == 0 {
            break;
        }
        place = place.wrapping_add(step & !below(place.wrapping_add(step))?);
        step >>= 1;
    }
    Some(place)
}

/// All ones if `a < b`, else zero, without a branch: with a branch per step the
/// verifier would have to follow every path through the search.
#[inline(always)]
fn less(a: u32, b: u32) -> u32 {
    let difference = opaque(u64::from(a).wrapping_sub(u64::from(b)));
    ((difference as i64) >> 63) as u32
}

/// [`less`] for 64 bits.
#[inline(always)]
fn below(a: u64, b: u64) -> u32 {
    // The borrow of a - b.
    let borrow = opaque((!a & b) | ((!a | b) & a.wrapping_sub(b)));
    ((borrow as i64) >> 63) as u32
}

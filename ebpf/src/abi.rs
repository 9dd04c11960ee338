//! The shapes that the kernel program and user space share.
//!
//! Everything here lies in a BPF map, so its layout is a contract between two
//! programs that may be of different ages: a pinned map outlives the agent.
//! [`ABI_VERSION`] is part of the pin path; maps of another version are never
//! reused. A test holds a fingerprint of these shapes, so that they cannot
//! change unless the version does.

use crate::{opaque::masked, packet::Plain, verdict::Verdict};

/// The version of every layout in this module, in [`crate::table`] and in the
/// map definitions of the binary. Raise it with any change to them.
pub const ABI_VERSION: u32 = 3;

/// Names of the maps, which are also their names under the pin directory.
pub mod map {
    /// One [`super::Control`].
    pub const CONTROL: &str = "CONTROL";
    /// Two tables of [`super::Line`]s, one live and one idle.
    pub const TABLES: &str = "TABLES";
    /// Per-CPU [`super::Counters`].
    pub const COUNTERS: &str = "COUNTERS";
    /// LRU hash from [`super::BlockedKey`] to [`super::Blocked`].
    pub const BLOCKED: &str = "BLOCKED";
    /// Ring buffer of [`super::DropEvent`]s.
    pub const EVENTS: &str = "EVENTS";
    /// Every map, in the order in which the agent handles them.
    pub const ALL: [&str; 5] = [CONTROL, TABLES, COUNTERS, BLOCKED, EVENTS];
}

/// Names of the entry points and of the constant that the loader sets.
pub mod program {
    /// Entry for drivers and kernels without multi-buffer XDP.
    pub const LINEAR: &str = "exogate";
    /// Entry for multi-buffer (jumbo) frames, kernel 5.18 and later.
    pub const FRAGS: &str = "exogate_frags";
    /// `u32`: 1 on interfaces without an Ethernet header, else 0.
    pub const LAYER3: &str = "LAYER3";
}

/// The unit of the table map: one cache line, because an array map rounds every
/// element up to 8 bytes and a search reads neighbours.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line(pub [u32; LINE_WORDS]);

/// 32-bit words in a [`Line`].
pub const LINE_WORDS: usize = 16;

impl Line {
    /// The 32-bit word `INDEX`.
    #[inline(always)]
    #[must_use]
    pub fn word<const INDEX: usize>(&self) -> u32 {
        const { assert!(INDEX < LINE_WORDS) }
        // SAFETY: as asserted.
        unsafe { *self.0.get_unchecked(INDEX) }
    }

    /// The 32-bit word `index & 15`.
    #[inline(always)]
    #[must_use]
    pub fn word_at(&self, index: u32) -> u32 {
        // SAFETY: the masked index is below LINE_WORDS.
        unsafe { *self.0.get_unchecked(masked::<15>(u64::from(index))) }
    }

    /// The 64-bit word `INDEX`, in host byte order.
    #[inline(always)]
    #[must_use]
    pub fn double<const INDEX: usize>(&self) -> u64 {
        const { assert!(INDEX < LINE_WORDS / 2) }
        // SAFETY: as asserted.
        unsafe { *self.doubles().get_unchecked(INDEX) }
    }

    /// The 64-bit word `index & 7`, in host byte order.
    #[inline(always)]
    #[must_use]
    pub fn double_at(&self, index: u32) -> u64 {
        // SAFETY: the masked index is below LINE_WORDS / 2.
        unsafe { *self.doubles().get_unchecked(masked::<7>(u64::from(index))) }
    }

    #[inline(always)]
    const fn doubles(&self) -> &[u64; LINE_WORDS / 2] {
        // SAFETY: a line is 8-byte aligned and as long as 8 such words.
        unsafe { &*(&raw const self.0).cast() }
    }
}

/// What the agent may change while the program runs, other than the nodes of the
/// tables.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Which of `heads` is in force: 0 or 1. The only word a publish switches.
    pub live: u32,
    /// Unix time in seconds as the agent last wrote it: the clock of the
    /// [`Sampler`] and of [`Blocked::last_seen`]. It stands still while no agent
    /// runs.
    pub epoch: u32,
    /// The heads of the two tables. All that most packets need lies here, in one
    /// element, because every lookup in a map costs as much as a few comparisons.
    pub heads: [Head; 2],
}

/// The part of a table whose size does not depend on the list. Places of nodes and
/// directories are lines, counted from `base`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Until when refused packets are dropped, in nanoseconds of the clock that counts from
    /// the boot; 0 for no end. After that they pass, whether an agent runs or not.
    pub deadline: u64,
    /// First line of the table in the `TABLES` map.
    pub base: u32,
    /// Lines that it occupies there.
    pub lines: u32,
    /// Bits of [`crate::table::flag`].
    pub flags: u32,
    /// IPv4 nodes.
    pub v4_nodes: u32,
    /// Finer directories of IPv4.
    pub v4_directories: u32,
    /// IPv6 nodes, by upper halves.
    pub v6_nodes: u32,
    /// Finer directories of IPv6.
    pub v6_directories: u32,
    /// IPv6 nodes of the second level, by lower halves.
    pub v6_low_nodes: u32,
    /// Entry for IPv6 addresses below 2000::/3.
    pub v6_below: u32,
    /// Entry for IPv6 addresses above 2000::/3.
    pub v6_above: u32,
    /// Bits of an IPv4 address behind those that index the directory.
    pub v4_shift: u32,
    /// The same of the upper half of an IPv6 address without its first three bits.
    pub v6_shift: u32,
    /// The sources that each guard accepts. Guard 0 stands on no port; its mask is the union
    /// of all others.
    pub guards: [u32; GUARDS],
    /// The guard of every port, 0 for none: TCP's, then UDP's.
    pub ports: [u8; 2 * PORTS],
    /// Entries by the first bits of an IPv4 address, at most [`DIRECTORY_BITS`].
    pub v4_directory: [u32; DIRECTORY],
    /// Entries by the bits of an address in 2000::/3 that follow the first three, at
    /// most [`DIRECTORY_BITS`].
    pub v6_directory: [u32; DIRECTORY],
}

/// Guards with different sources that one table can tell apart, and one more.
pub const GUARDS: usize = 256;
/// Ports of a protocol.
pub const PORTS: usize = 65_536;
/// Most leading bits of an address that index a directory: enough that few nodes remain
/// per block, few enough that what is used of it stays in the cache.
pub const DIRECTORY_BITS: u32 = 16;
/// Entries of a directory.
pub const DIRECTORY: usize = 1 << DIRECTORY_BITS;

/// Packets and bytes of one [`Verdict::place`] on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, counted from the first byte that XDP sees.
    pub bytes: u64,
}

/// All that a CPU counts, in one element, because every lookup in a map costs as much
/// as counting does.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// What it has seen, by [`Verdict::place`]. More than there are verdicts, so that a
    /// masked index lies within.
    pub verdicts: [Counter; COUNTER_PLACES],
    /// How many of its drops were recorded.
    pub sampler: Sampler,
}

/// Places for counters: a power of two.
pub const COUNTER_PLACES: usize = 64;
/// How many drops this CPU has seen in the current epoch (second). The first
/// [`SAMPLED_PER_EPOCH`] are recorded each, after that one in
/// [`SAMPLE_INTERVAL`], so that a flood costs next to nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampler {
    /// The [`Control::epoch`] that `drops` belongs to.
    pub epoch: u32,
    /// Drops on this CPU in that epoch.
    pub drops: u32,
}

/// Drops per CPU and second that are recorded one by one.
pub const SAMPLED_PER_EPOCH: u32 = 128;
/// Beyond that one drop in so many is recorded, with this weight.
pub const SAMPLE_INTERVAL: u32 = 4096;

/// A blocked source: IPv6, or IPv4 in the mapped form `::ffff:a.b.c.d`.
pub type BlockedKey = [u8; 16];

/// What is remembered of a blocked source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Estimated packets: the sum of the weights of its recorded drops.
    pub packets: u64,
    /// [`Control::epoch`] of the latest record.
    pub last_seen: u32,
    /// Destination port of the latest record, host byte order.
    pub port: u16,
    /// IP protocol number of the latest record.
    pub protocol: u8,
    /// [`Action`](crate::verdict::Action) of the latest record.
    pub action: u8,
}

/// A recorded drop (or, in monitor mode, what would have been one).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropEvent {
    /// Source address, as [`BlockedKey`].
    pub source: [u8; 16],
    /// Destination address, in the same form.
    pub destination: [u8; 16],
    /// How many drops this record stands for.
    pub weight: u32,
    /// Length of the packet in bytes.
    pub length: u32,
    /// Source port, host byte order; 0 if unknown.
    pub source_port: u16,
    /// Destination port, host byte order; 0 if unknown.
    pub port: u16,
    /// IP protocol number; 0 if unknown.
    pub protocol: u8,
    /// [`Action`](crate::verdict::Action).
    pub action: u8,
    /// [`Reason`](crate::verdict::Reason).
    pub reason: u8,
    /// [`Family`](crate::verdict::Family).
    pub family: u8,
}

// SAFETY: integers and arrays of integers, without padding (asserted below).
unsafe impl Plain for Line {}
// SAFETY: as above.
unsafe impl Plain for Head {}
// SAFETY: as above.
unsafe impl Plain for Control {}
// SAFETY: as above.
unsafe impl Plain for Counter {}
// SAFETY: as above.
unsafe impl Plain for Counters {}
// SAFETY: as above.
unsafe impl Plain for Sampler {}
// SAFETY: as above.
unsafe impl Plain for Blocked {}
// SAFETY: as above.
unsafe impl Plain for DropEvent {}

const _: () = {
    assert!(size_of::<Line>() == 64 && align_of::<Line>() == 8);
    assert!(size_of::<Head>() == 8 + 12 * 4 + 4 * GUARDS + 2 * PORTS + 2 * 4 * DIRECTORY);
    assert!(size_of::<Control>() == 8 + 2 * size_of::<Head>());
    assert!(size_of::<Counter>() == 16);
    assert!(Verdict::COUNT as usize <= COUNTER_PLACES);
    assert!(size_of::<Counters>() == COUNTER_PLACES * 16 + 8);
    assert!(size_of::<Sampler>() == 8);
    assert!(size_of::<Blocked>() == 16);
    assert!(size_of::<DropEvent>() == 48);
};

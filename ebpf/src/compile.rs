//! Builds the table that [`crate::table`] reads. Host only.
//!
//! Compilation is a pure function of the policy, so that the hash of a table
//! identifies a policy and a table can be checked before it is published. It
//! takes time in proportion to n log n for n prefixes, and a table of a million
//! prefixes is about 30 MB.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    abi::{LINE_WORDS, Line},
    packet::{TCP, UDP},
    table::{
        Entry, GUARDS_LINE, INDEX_LINE, MAX_GUARDS, MAX_KEYS, MAX_SOURCES, PORT_LINES, PORTS_LINE,
        flag, header,
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
    /// More interval boundaries than [`MAX_KEYS`].
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
                write!(f, "the prefixes cut the address space into more than {MAX_KEYS} intervals")
            }
        }
    }
}

impl std::error::Error for Error {}

/// Compiles a policy into the lines of a table.
///
/// # Errors
///
/// [`Error`] if the policy does not fit the layout.
pub fn compile(policy: &Policy) -> Result<Vec<Line>, Error> {
    let mut builder = Builder::new(policy)?;
    let (v4, v6) = spans(policy)?;
    builder.v4(&intervals(v4, u128::from(u32::MAX)))?;
    builder.v6(&intervals(v6, u128::MAX))?;
    Ok(builder.finish())
}

/// Lines that suffice for a table of so many prefixes, whatever they are.
///
/// The worst case is IPv6 prefixes longer than /64, each alone in its /64 block:
/// two keys and values of the first level and four of the second each. Where all
/// of them lie outside global unicast, one window spans the first level, which is
/// then as long as a power of two.
#[must_use]
#[allow(clippy::arithmetic_side_effects, reason = "far below 2^64 for any u32")]
pub fn lines_for(prefixes: u32) -> u32 {
    let keys = 2 * u64::from(prefixes) + 1;
    let window = keys.next_power_of_two();
    let directories = 2 * (1u64 << MOST_WIDTH) / LINE_WORDS as u64;
    let first = window.div_ceil(8) + window.div_ceil(16);
    let second = (2 * keys).div_ceil(8) + (2 * keys).div_ceil(16);
    // A line per section is lost to rounding up.
    let lines = u64::from(INDEX_LINE) + directories + first + second + 8;
    u32::try_from(lines).unwrap_or(u32::MAX)
}

/// A span of addresses with a mask: one prefix.
struct Span {
    first: u128,
    last: u128,
    mask: u32,
}

/// The first address of an interval, and the mask that applies to it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Boundary {
    first: u128,
    mask: u32,
}

fn spans(policy: &Policy) -> Result<(Vec<Span>, Vec<Span>), Error> {
    let mut v4 = Vec::with_capacity(policy.prefixes.len());
    let mut v6 = Vec::new();
    let mut add = |address: IpAddr, length: u8, mask: u32| {
        let (bits, base, spans) = match address {
            IpAddr::V4(address) => (32u32, u128::from(address.to_bits()), &mut v4),
            IpAddr::V6(address) => (128, address.to_bits(), &mut v6),
        };
        let Some(free_bits) = bits.checked_sub(u32::from(length)) else {
            return Err(Error::PrefixLength { length });
        };
        // All ones in the free bits; a shift by 128 leaves none.
        let free = u128::MAX.checked_shr(128u32.saturating_sub(free_bits)).unwrap_or(0);
        spans.push(Span { first: base & !free, last: base | free, mask });
        Ok(())
    };
    for prefix in &policy.prefixes {
        if prefix.sources >> MAX_SOURCES != 0 {
            return Err(Error::SourceBit { sources: prefix.sources });
        }
        add(prefix.address, prefix.length, prefix.sources)?;
    }
    for &(address, length) in policy.destinations.iter().flatten() {
        add(address, length, Entry::DESTINATION)?;
    }
    Ok((v4, v6))
}

/// Cuts the space from 0 to `last` at every boundary. Prefixes are nested or
/// disjoint, so one pass over the sorted spans with a stack of the open ones is
/// enough.
fn intervals(mut spans: Vec<Span>, last: u128) -> Vec<Boundary> {
    // Wider spans first among those that start together.
    spans.sort_unstable_by_key(|span| (span.first, !span.last));
    let mut boundaries = Vec::with_capacity(spans.len().saturating_mul(2).saturating_add(1));
    let mut open: Vec<(u128, u32)> = Vec::new();
    set(&mut boundaries, 0, 0);
    for span in &spans {
        close(&mut boundaries, &mut open, Some(span.first), last);
        let mask = open.last().map_or(0, |&(_, mask)| mask) | span.mask;
        set(&mut boundaries, span.first, mask);
        open.push((span.last, mask));
    }
    close(&mut boundaries, &mut open, None, last);
    boundaries
}

/// Ends the open spans that end before `before` (all for `None`).
fn close(
    boundaries: &mut Vec<Boundary>,
    open: &mut Vec<(u128, u32)>,
    before: Option<u128>,
    last: u128,
) {
    while let Some(&(end, _)) = open.last() {
        if before.is_some_and(|before| end >= before) {
            break;
        }
        open.pop();
        if end < last {
            let outer = open.last().map_or(0, |&(_, mask)| mask);
            set(boundaries, end.saturating_add(1), outer);
        }
    }
}

/// Starts an interval, replacing one that would be empty and leaving out one
/// that would change nothing.
fn set(boundaries: &mut Vec<Boundary>, first: u128, mask: u32) {
    if boundaries.last().is_some_and(|boundary| boundary.first == first) {
        boundaries.pop();
    }
    if boundaries.last().is_none_or(|boundary| boundary.mask != mask) {
        boundaries.push(Boundary { first, mask });
    }
}

/// A table as it grows. Every section starts at a line.
struct Builder {
    words: Vec<u32>,
}

#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "all sizes are bounded by MAX_KEYS (checked in `level`) and the fixed layout; this code sees no outside data but through `spans`"
)]
impl Builder {
    fn new(policy: &Policy) -> Result<Self, Error> {
        let mut builder = Self { words: vec![0; INDEX_LINE as usize * LINE_WORDS] };
        let mut flags = 0;
        if policy.enforce {
            flags |= flag::ENFORCE;
        }
        if policy.destinations.is_some() {
            flags |= flag::DESTINATIONS;
        }
        builder.set_header(header::FLAGS, flags);
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
        let mut any = 0;
        for ((protocol, port), sources) in by_port {
            any |= sources;
            let number = masks.iter().position(|&mask| mask == sources).unwrap_or_else(|| {
                masks.push(sources);
                masks.len() - 1
            }) + 1;
            if number > MAX_GUARDS as usize {
                return Err(Error::TooManyGuards);
            }
            self.words[GUARDS_LINE as usize * LINE_WORDS + number] = sources;
            let first = match protocol {
                Protocol::Tcp => PORTS_LINE,
                Protocol::Udp => PORTS_LINE + PORT_LINES,
            };
            let word = first as usize * LINE_WORDS + usize::from(port >> 2);
            let shift = u32::from(port & 3) * 8;
            self.words[word] |= (number as u32) << shift;
        }
        self.set_header(header::ANY_GUARD, any);
        Ok(())
    }

    fn v4(&mut self, boundaries: &[Boundary]) -> Result<(), Error> {
        let keys: Vec<u64> = boundaries.iter().map(|boundary| boundary.first as u64).collect();
        let values: Vec<Entry> =
            boundaries.iter().map(|boundary| Entry::mask(boundary.mask)).collect();
        let width = directory_width(keys.len());
        let mut level = Level::new(keys, values)?;
        let directory = level.directory(0, 32, width);
        self.set_header(header::V4_SHIFT, 32 - width);
        let at = self.section(directory.iter().map(|entry| entry.0));
        self.set_header(header::V4_DIRECTORY, at);
        let at = self.section(level.keys.iter().map(|&key| key as u32));
        self.set_header(header::V4_KEYS, at);
        let at = self.section(level.values.iter().map(|entry| entry.0));
        self.set_header(header::V4_VALUES, at);
        Ok(())
    }

    fn v6(&mut self, boundaries: &[Boundary]) -> Result<(), Error> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let (mut low_keys, mut low_values) = (Vec::new(), Vec::new());
        // What applies at the end of the block before.
        let mut carried = 0;
        for block in boundaries.chunk_by(|a, b| a.first >> 64 == b.first >> 64) {
            let Some((first, last)) = block.first().zip(block.last()) else { continue };
            let high = (first.first >> 64) as u64;
            // A block that was cut may end before this one, which then needs a
            // start of its own.
            if let Some(&before) = keys.last()
                && values.last().is_some_and(|value: &Entry| value.is_run())
                && before < high - 1
            {
                keys.push(before + 1);
                values.push(Entry::mask(carried));
            }
            keys.push(high);
            if last.first as u64 == 0 {
                values.push(Entry::mask(last.mask));
            } else {
                let start = low_keys.len();
                if first.first as u64 != 0 {
                    low_keys.push(0);
                    low_values.push(Entry::mask(carried));
                }
                low_keys.extend(block.iter().map(|boundary| boundary.first as u64));
                low_values.extend(block.iter().map(|boundary| Entry::mask(boundary.mask)));
                let steps = steps(low_keys.len() - start);
                low_keys.resize(start + (1 << steps), u64::MAX);
                low_values.resize(start + (1 << steps), Entry::mask(last.mask));
                if low_keys.len() > MAX_KEYS as usize {
                    return Err(Error::TooManyIntervals);
                }
                values.push(Entry::run(start as u32, steps));
            }
            carried = last.mask;
        }
        if let Some(&before) = keys.last()
            && values.last().is_some_and(|value| value.is_run())
            && before < u64::MAX
        {
            keys.push(before + 1);
            values.push(Entry::mask(carried));
        }

        const FIRST: u64 = 1 << 61;
        const END: u64 = 2 << 61;
        let width = directory_width(keys.len());
        let mut level = Level::new(keys, values)?;
        let below = level.entry(0, FIRST - 1);
        let above = level.entry(END, u64::MAX);
        let directory = level.directory(FIRST, 61, width);
        self.set_header(header::V6_BELOW, below.0);
        self.set_header(header::V6_ABOVE, above.0);
        self.set_header(header::V6_SHIFT, 61 - width);
        let at = self.section(directory.iter().map(|entry| entry.0));
        self.set_header(header::V6_DIRECTORY, at);
        let at = self.section64(&level.keys);
        self.set_header(header::V6_KEYS, at);
        let at = self.section(level.values.iter().map(|entry| entry.0));
        self.set_header(header::V6_VALUES, at);
        let at = self.section64(&low_keys);
        self.set_header(header::V6_LOW_KEYS, at);
        let at = self.section(low_values.iter().map(|entry| entry.0));
        self.set_header(header::V6_LOW_VALUES, at);
        Ok(())
    }

    /// Appends a section and returns its place in 32-bit words.
    fn section(&mut self, words: impl Iterator<Item = u32>) -> u32 {
        let at = self.words.len();
        self.words.extend(words);
        self.words.resize(self.words.len().next_multiple_of(LINE_WORDS), 0);
        at as u32
    }

    /// Appends a section and returns its place in 64-bit words.
    fn section64(&mut self, words: &[u64]) -> u32 {
        // The order of the halves is that of the host, as the kernel reads them.
        self.section(words.iter().flat_map(|word| {
            let bytes = word.to_ne_bytes();
            let (left, right) = bytes.split_at(4);
            [left, right].map(|half| u32::from_ne_bytes([half[0], half[1], half[2], half[3]]))
        })) / 2
    }

    fn set_header(&mut self, field: u32, value: u32) {
        self.words[field as usize] = value;
    }

    fn finish(mut self) -> Vec<Line> {
        let lines = self.words.len() / LINE_WORDS;
        self.set_header(header::LINES, lines as u32);
        let (lines, _) = self.words.as_chunks::<LINE_WORDS>();
        lines.iter().map(|words| Line(*words)).collect()
    }
}

/// Sorted keys and what applies from each to the next.
struct Level {
    keys: Vec<u64>,
    values: Vec<Entry>,
}

#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "positions come from the keys themselves; the first key is 0, so that every address has a position"
)]
impl Level {
    fn new(keys: Vec<u64>, values: Vec<Entry>) -> Result<Self, Error> {
        // A window of twice the keys must still be expressible.
        if keys.len() > MAX_KEYS as usize / 2 {
            return Err(Error::TooManyIntervals);
        }
        Ok(Self { keys, values })
    }

    fn position(&self, address: u64) -> usize {
        self.keys.partition_point(|&key| key <= address) - 1
    }

    /// What applies to the addresses from `first` to `last`.
    fn entry(&mut self, first: u64, last: u64) -> Entry {
        let (start, end) = (self.position(first), self.position(last));
        self.entry_between(start, end)
    }

    fn entry_between(&mut self, start: usize, end: usize) -> Entry {
        let value = self.values[start];
        if !value.is_run() && self.values[start..=end].iter().all(|&other| other == value) {
            return value;
        }
        let steps = steps(end - start + 1);
        let window = 1 << steps;
        if self.keys.len() < window {
            let last = self.values.last().copied().unwrap_or(value);
            self.keys.resize(window, u64::MAX);
            self.values.resize(window, last);
        }
        // The window may begin earlier, but not end later than the keys.
        Entry::run(start.min(self.keys.len() - window) as u32, steps)
    }

    /// One entry for each of the 2^`width` blocks of the 2^`bits` addresses from
    /// `first` on.
    fn directory(&mut self, first: u64, bits: u32, width: u32) -> Vec<Entry> {
        let block = 1u64 << (bits - width);
        let mut start = self.position(first);
        (0..1u64 << width)
            .map(|number| {
                let from = first + number * block;
                let to = from + (block - 1);
                while self.keys.get(start + 1).is_some_and(|&key| key <= from) {
                    start += 1;
                }
                let mut end = start;
                while self.keys.get(end + 1).is_some_and(|&key| key <= to) {
                    end += 1;
                }
                self.entry_between(start, end)
            })
            .collect()
    }
}

/// How many halvings find one of `keys` keys.
fn steps(keys: usize) -> u32 {
    keys.max(1).next_power_of_two().trailing_zeros()
}

/// Bits of the directory: enough that few keys remain per block, few enough that
/// the directory stays in the cache. Measured, see BENCHMARKS.md.
#[allow(clippy::arithmetic_side_effects, reason = "logarithms of lengths")]
fn directory_width(keys: usize) -> u32 {
    let most = if keys > 200_000 { MOST_WIDTH } else { 16 };
    (steps(keys) + 3).clamp(8, most)
}

/// The widest directory.
const MOST_WIDTH: u32 = 18;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::table::Table;

    fn prefix(net: IpNet, sources: u32) -> Prefix {
        Prefix { address: net.addr(), length: net.prefix_len(), sources }
    }

    fn lookup(lines: &[Line], address: IpAddr) -> u32 {
        Table::at(lines, 0).unwrap().sources(&address.into())
    }

    fn expected(prefixes: &[Prefix], address: IpAddr) -> u32 {
        prefixes
            .iter()
            .filter(|prefix| IpNet::new(prefix.address, prefix.length).unwrap().contains(&address))
            .fold(0, |mask, prefix| mask | prefix.sources)
    }

    /// Every boundary of the prefixes, and the addresses beside it.
    fn edges(prefixes: &[Prefix]) -> Vec<IpAddr> {
        let mut edges = Vec::new();
        for prefix in prefixes {
            let net = IpNet::new(prefix.address, prefix.length).unwrap();
            for address in [net.network(), net.broadcast()] {
                match address {
                    IpAddr::V4(address) => edges.extend([-1, 0, 1].map(|by| {
                        IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(by)))
                    })),
                    IpAddr::V6(address) => edges.extend([-1, 0, 1].map(|by| {
                        IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().wrapping_add_signed(by)))
                    })),
                }
            }
        }
        edges
    }

    fn check(prefixes: Vec<Prefix>, addresses: &[IpAddr]) {
        let policy = Policy { prefixes, ..Policy::default() };
        let lines = compile(&policy).unwrap();
        for &address in edges(&policy.prefixes).iter().chain(addresses) {
            assert_eq!(
                lookup(&lines, address),
                expected(&policy.prefixes, address),
                "sources of {address} among {:?}",
                policy.prefixes
            );
        }
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        // Narrow choices of leading bits make prefixes meet and nest.
        let v4 = (prop_oneof![any::<u32>(), 0u32..8, Just(u32::MAX)], 0u8..=32).prop_map(
            |(bits, length)| IpNet::new(Ipv4Addr::from_bits(bits).into(), length).unwrap(),
        );
        let v6 = (
            prop_oneof![
                any::<u64>(),
                (0u64..4).prop_map(|bits| 0x2603_1000_0000_0000 | bits),
                Just(u64::MAX),
                Just(0)
            ],
            prop_oneof![any::<u64>(), 0u64..4, Just(u64::MAX)],
            0u8..=128,
        )
            .prop_map(|(high, low, length)| {
                let bits = u128::from(high) << 64 | u128::from(low);
                IpNet::new(Ipv6Addr::from_bits(bits).into(), length).unwrap()
            });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn every_address_gets_the_sources_that_contain_it(
            nets in proptest::collection::vec((any_net(), 0u32..1 << MAX_SOURCES), 0..40),
            others in proptest::collection::vec(any_net(), 0..40),
        ) {
            let prefixes = nets.into_iter().map(|(net, sources)| prefix(net, sources)).collect();
            let others: Vec<_> = others.iter().map(IpNet::addr).collect();
            check(prefixes, &others);
        }

        #[test]
        fn a_level_full_of_addresses_outside_global_unicast_is_searched_right(
            count in 1usize..2_000,
        ) {
            let prefixes = (0..count)
                .step_by(7)
                .map(|n| prefix(format!("fd00:{n:x}::/48").parse().unwrap(), 1))
                .collect();
            check(prefixes, &[]);
        }
    }

    #[test]
    fn a_guard_is_found_on_its_own_protocol_and_port_only() {
        let guards = vec![
            Guard { protocol: Protocol::Tcp, port: 443, sources: 0b01 },
            Guard { protocol: Protocol::Udp, port: 65_535, sources: 0b10 },
            Guard { protocol: Protocol::Tcp, port: 0, sources: 0 },
        ];
        let lines = compile(&Policy { guards, ..Policy::default() }).unwrap();
        let table = Table::at(lines.as_slice(), 0).unwrap();
        for port in 0..=65_535u16 {
            let tcp = match port {
                443 => Some(0b01),
                0 => Some(0),
                _ => None,
            };
            assert_eq!(table.guard(TCP, port), tcp, "TCP {port}");
            assert_eq!(table.guard(UDP, port), (port == 65_535).then_some(0b10), "UDP {port}");
        }
        assert_eq!(table.any_guard(), 0b11);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let too_long = Prefix { address: Ipv4Addr::LOCALHOST.into(), length: 33, sources: 1 };
        let policy = Policy { prefixes: vec![too_long], ..Policy::default() };
        assert_eq!(compile(&policy), Err(Error::PrefixLength { length: 33 }));

        let too_high = Prefix { length: 8, sources: 1 << MAX_SOURCES, ..too_long };
        let policy = Policy { prefixes: vec![too_high], ..Policy::default() };
        assert_eq!(compile(&policy), Err(Error::SourceBit { sources: 1 << MAX_SOURCES }));

        let guards = (0..=MAX_GUARDS as u16)
            .map(|port| Guard { protocol: Protocol::Tcp, port, sources: u32::from(port) })
            .collect();
        let policy = Policy { guards, ..Policy::default() };
        assert_eq!(compile(&policy), Err(Error::TooManyGuards));
    }
}

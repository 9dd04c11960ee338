//! One level of an interval index: sorted keys, and the nodes made of them.

use crate::{
    abi::{LINE_WORDS, Line},
    compile::Error,
    table::{
        DIRECTORY_HEAD, Entry, MAX_DIRECTORIES, MAX_NODES, NODE_INTERVALS, WIDE_NODE_INTERVALS,
    },
};

/// Keys in ascending order, beginning with 0, and what applies from each to the
/// next.
pub(super) struct Level {
    keys: Vec<u64>,
    values: Vec<Entry>,
    /// Keys in a node.
    per_node: usize,
    /// Finer directories, each from the start of a line on.
    directories: Vec<u32>,
}

/// Halvings of a window from which on a finer directory takes less time than they do.
const CROWDED: u32 = 2;
/// A block that has a directory has at least so many keys for each line of it: eleven
/// where it has two lines, and more where it has one or many.
pub(super) const MIN_KEYS_PER_DIRECTORY_LINE: u64 = 5;

#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "positions come from the keys themselves, the first of which is 0, and sizes are bounded by MAX_NODES"
)]
impl Level {
    /// A level of IPv4 keys.
    pub(super) fn narrow(keys: Vec<u64>, values: Vec<Entry>) -> Result<Self, Error> {
        Self::new(keys, values, NODE_INTERVALS)
    }

    /// A level of keys of 64 bits.
    pub(super) fn wide(keys: Vec<u64>, values: Vec<Entry>) -> Result<Self, Error> {
        Self::new(keys, values, WIDE_NODE_INTERVALS)
    }

    fn new(keys: Vec<u64>, values: Vec<Entry>, per_node: usize) -> Result<Self, Error> {
        // A window of twice the nodes must still be expressible.
        if keys.len().div_ceil(per_node) > MAX_NODES as usize / 2 {
            return Err(Error::TooManyIntervals);
        }
        let mut level = Self { keys, values, per_node, directories: Vec::new() };
        level.pad_to(1);
        Ok(level)
    }

    fn nodes(&self) -> usize {
        self.keys.len() / self.per_node
    }

    /// Fills up the last node, and adds nodes until there are so many. What is
    /// added lies behind every address and changes nothing for the last of them.
    fn pad_to(&mut self, nodes: usize) {
        let last = self.values.last().copied().unwrap_or(Entry::mask(0));
        let keys = self.keys.len().next_multiple_of(self.per_node).max(nodes * self.per_node);
        self.keys.resize(keys, u64::MAX);
        self.values.resize(keys, last);
    }

    fn position(&self, address: u64) -> usize {
        self.keys.partition_point(|&key| key <= address) - 1
    }

    /// What applies to the addresses from `first` to `last`.
    pub(super) fn entry(&mut self, first: u64, last: u64) -> Entry {
        let (start, end) = (self.position(first), self.position(last));
        self.entry_between(start, end)
    }

    fn entry_between(&mut self, start: usize, end: usize) -> Entry {
        let value = self.values[start];
        if value.is_mask() && self.values[start..=end].iter().all(|&other| other == value) {
            return value;
        }
        let (start, end) = (start / self.per_node, end / self.per_node);
        let steps = steps(end - start + 1);
        let window = 1 << steps;
        if self.nodes() < window {
            self.pad_to(window);
        }
        // The window may begin earlier, but not end later than the nodes.
        Entry::run(start.min(self.nodes() - window) as u32, steps)
    }

    /// One entry for each of the 2^`width` blocks of the 2^`bits` addresses from
    /// `first` on.
    pub(super) fn directory(&mut self, first: u64, bits: u32, width: u32) -> Vec<Entry> {
        let size = bits - width;
        let mut start = self.position(first);
        (0..1u64 << width)
            .map(|number| {
                let end;
                (start, end) = self.block(start, first + (number << size), size);
                self.finer(start, end, 0)
            })
            .collect()
    }

    /// The positions of the first and the last key that matter to the 2^`size` addresses
    /// from `first` on, which do not lie below the key at `start`.
    fn block(&self, mut start: usize, first: u64, size: u32) -> (usize, usize) {
        let last = first + ((1u64 << size) - 1);
        while self.keys.get(start + 1).is_some_and(|&key| key <= first) {
            start += 1;
        }
        let mut end = start;
        while self.keys.get(end + 1).is_some_and(|&key| key <= last) {
            end += 1;
        }
        (start, end)
    }

    /// The entry of a block with these keys, of which the first begins with it or before:
    /// a directory of its own if they are many. `depth` counts the ones that lead here.
    fn finer(&mut self, start: usize, end: usize, depth: u32) -> Entry {
        let nodes = end / self.per_node - start / self.per_node + 1;
        let entry = self.entry_between(start, end);
        if entry.is_mask() || steps(nodes) < CROWDED || depth == MAX_DIRECTORIES {
            return entry;
        }
        // As many blocks as there are keys in it, or not many less.
        let (low, high) = (self.keys[start + 1], self.keys[end]);
        let most = (end - start) as u64;
        let mut size = 0;
        while (high >> size) - (low >> size) >= most {
            size += 1;
        }
        let (from, to) = (low >> size, high >> size);
        let mut words = Vec::new();
        let before = from.wrapping_sub(1).to_ne_bytes();
        words.extend(
            before
                .chunks_exact(4)
                .map(|half| u32::from_ne_bytes([half[0], half[1], half[2], half[3]])),
        );
        words.extend([size, (to - from) as u32 + 2]);
        debug_assert_eq!(words.len(), DIRECTORY_HEAD as usize);
        words.push(self.entry_between(start, start).0);
        let mut place = start;
        for number in from..=to {
            let last;
            (place, last) = self.block(place, number << size, size);
            words.push(self.finer(place, last, depth + 1).0);
        }
        words.push(self.entry_between(end, end).0);
        let at = self.directories.len();
        self.directories.extend(words);
        self.directories.resize(self.directories.len().next_multiple_of(LINE_WORDS), 0);
        Entry::directory((at / LINE_WORDS) as u32)
    }

    /// The finer directories.
    pub(super) fn directory_lines(&self) -> Result<Vec<Line>, Error> {
        if self.directories.len() / LINE_WORDS > MAX_NODES as usize {
            return Err(Error::TooManyIntervals);
        }
        Ok(self
            .directories
            .chunks_exact(LINE_WORDS)
            .map(|words| {
                let mut line = Line::default();
                line.0.copy_from_slice(words);
                line
            })
            .collect())
    }

    /// The nodes.
    pub(super) fn lines(&self) -> Vec<Line> {
        self.keys
            .chunks_exact(self.per_node)
            .zip(self.values.chunks_exact(self.per_node))
            .map(|(keys, values)| {
                let mut words = [0; LINE_WORDS];
                if self.per_node == NODE_INTERVALS {
                    for (word, &key) in words.iter_mut().zip(keys) {
                        *word = key as u32;
                    }
                } else {
                    for (pair, key) in words.chunks_exact_mut(2).zip(keys) {
                        // The order of the halves is that of the host, as the kernel
                        // reads them.
                        let bytes = key.to_ne_bytes();
                        let half = |at| {
                            u32::from_ne_bytes([
                                bytes[at],
                                bytes[at + 1],
                                bytes[at + 2],
                                bytes[at + 3],
                            ])
                        };
                        pair.copy_from_slice(&[half(0), half(4)]);
                    }
                }
                for (word, value) in words[8..].iter_mut().zip(values) {
                    *word = value.0;
                }
                Line(words)
            })
            .collect()
    }
}

/// Second-level keys of the IPv6 blocks that prefixes longer than /64 cut.
#[derive(Default)]
pub(super) struct LowLevel {
    keys: Vec<u64>,
    values: Vec<Entry>,
}

#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "sizes are bounded by the prefixes in memory, and checked in `finish`"
)]
impl LowLevel {
    /// Adds the intervals of one block, which begin with lower half 0, and returns
    /// the run that finds them. Keys of one block stand apart from the next one's,
    /// so the window must not reach beyond them.
    pub(super) fn block(&mut self, intervals: impl Iterator<Item = (u64, u32)>) -> Entry {
        let start = self.keys.len() / WIDE_NODE_INTERVALS;
        for (key, mask) in intervals {
            self.keys.push(key);
            self.values.push(Entry::mask(mask));
        }
        let nodes = self.keys.len().div_ceil(WIDE_NODE_INTERVALS) - start;
        let steps = steps(nodes);
        let end = (start + (1 << steps)) * WIDE_NODE_INTERVALS;
        let last = self.values.last().copied().unwrap_or(Entry::mask(0));
        self.keys.resize(end, u64::MAX);
        self.values.resize(end, last);
        Entry::run(start as u32, steps)
    }

    /// The level.
    pub(super) fn finish(self) -> Result<Level, Error> {
        Level::wide(self.keys, self.values)
    }
}

/// How many halvings find one of so many.
fn steps(count: usize) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

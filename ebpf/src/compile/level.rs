//! One level of an interval index: sorted keys, and the nodes made of them.

use crate::{
    abi::{LINE_WORDS, Line},
    compile::Error,
    table::{Entry, MAX_NODES, NODE_INTERVALS, WIDE_NODE_INTERVALS},
};

/// Keys in ascending order, beginning with 0, and what applies from each to the
/// next.
pub(super) struct Level {
    keys: Vec<u64>,
    values: Vec<Entry>,
    /// Keys in a node.
    per_node: usize,
}

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
        let mut level = Self { keys, values, per_node };
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
        if !value.is_run() && self.values[start..=end].iter().all(|&other| other == value) {
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

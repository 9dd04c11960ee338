//! The verdict as a table of packets: what the packet is, its bytes, what becomes
//! of it.
//!
//! The host test runs every row through the library and the kernel test includes
//! this file and runs the same rows through the program, so that both are held
//! to one specification. It therefore needs nothing but etherparse and the
//! library.

#![allow(dead_code, reason = "each of the tests that include this file uses a part of it")]
#![allow(unreachable_pub, reason = "the file is a module of test binaries, which export nothing")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test data: a wrong row must not go unnoticed"
)]

mod expected;
mod guards;
mod ipv4;
mod ipv6;
mod layer;
mod link;
mod policy;
mod truncations;

use std::ops::Range;

use exogate_ebpf::{
    compile::Policy,
    packet::LinkLayer,
    verdict::{Action, Family, Reason},
};

pub use self::{
    guards::destination_cases,
    policy::{HOST4, HOST6, destination_policy, policy},
};
use layer::Frame;

/// A row.
#[derive(Clone)]
pub struct Case {
    /// What the packet is.
    pub name: String,
    /// How the frame begins.
    pub link_layer: LinkLayer,
    /// The frame.
    pub frame: Vec<u8>,
    /// The verdict in enforce mode.
    pub expected: Expected,
}

/// A verdict.
pub type Expected = (Action, Reason, Family);

/// What a policy does with refused packets.
#[derive(Debug)]
pub struct Mode {
    pub enforce: bool,
    pub deadline: Option<u64>,
    /// Whether they are dropped at [`NOW`].
    pub drops: bool,
}

impl Mode {
    const fn new(enforce: bool, deadline: Option<u64>, drops: bool) -> Self {
        Self { enforce, deadline, drops }
    }

    /// A policy in this mode.
    pub fn of(&self, policy: &Policy) -> Policy {
        Policy { enforce: self.enforce, deadline: self.deadline, ..policy.clone() }
    }
}

/// The host's clock in nanoseconds since the boot; the kernel's says something else, but lies
/// between the same deadlines.
pub const NOW: u64 = 1_000_000_000;

/// Monitor, enforce, and enforce on trial: for a while yet, or for too long already.
pub const MODES: [Mode; 4] = [
    Mode::new(false, None, false),
    Mode::new(true, None, true),
    Mode::new(true, Some(u64::MAX), true),
    Mode::new(true, Some(1), false),
];

impl Case {
    /// The verdict in a mode: the same, but where nothing is dropped.
    pub fn expected_in(&self, mode: &Mode) -> Expected {
        match self.expected {
            (Action::Drop, reason, family) if !mode.drops => (Action::WouldDrop, reason, family),
            verdict => verdict,
        }
    }

    /// Whether `BPF_PROG_TEST_RUN` takes the frame: the kernel refuses data that
    /// is shorter than an Ethernet header, even where the program expects none.
    pub fn fits_test_run(&self) -> bool {
        self.frame.len() >= TEST_RUN_BYTES
    }
}

/// A UDP datagram in Ethernet and IPv4, without tags and options, that gets this verdict.
pub fn datagram(expected: Expected) -> Vec<u8> {
    const IPV4_WITHOUT_OPTIONS: [u8; 3] = [0x08, 0x00, 0x45];
    const UDP: u8 = 17;
    let is_it = |case: &Case| {
        (case.link_layer, case.expected) == (LinkLayer::Ethernet, expected)
            && case.frame.get(12..15) == Some(&IPV4_WITHOUT_OPTIONS)
            && case.frame.get(23) == Some(&UDP)
            && case.fits_test_run()
    };
    cases().into_iter().find(is_it).unwrap().frame
}

/// Where the source address of such a datagram is.
pub const DATAGRAM_SOURCE: Range<usize> = 26..30;

/// The kernel's `ETH_HLEN`.
pub const TEST_RUN_BYTES: usize = 14;

/// The table for [`policy`].
pub fn cases() -> Vec<Case> {
    [
        guards::guards_and_sources(),
        guards::edges_of_prefixes(),
        link::not_ip_frames(),
        link::tags(),
        link::interfaces_without_a_link_layer(),
        ipv4::headers(),
        ipv4::fragments(),
        ipv6::headers(),
        ipv6::extensions(),
        ipv6::fragments(),
        truncations::truncations(),
    ]
    .concat()
}

fn table<const N: usize>(rows: [(&str, Frame, Expected); N]) -> Vec<Case> {
    rows.into_iter().map(|(name, frame, expected)| row(name, frame, expected)).collect()
}

fn row(name: impl Into<String>, frame: Frame, expected: Expected) -> Case {
    Case { name: name.into(), link_layer: frame.link_layer, frame: frame.bytes, expected }
}

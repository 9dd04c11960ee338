//! A fingerprint of all that the kernel program and user space share, so that it
//! cannot change unless [`ABI_VERSION`] does.

#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "a test fails by panicking, and overflow checks are on"
)]

use std::{fmt::Write as _, mem::offset_of};

use exogate_ebpf::{
    abi::{
        ABI_VERSION, Blocked, BlockedKey, COUNTER_PLACES, Control, Counter, Counters, DIRECTORY,
        DIRECTORY_BITS, DropEvent, GUARDS, Head, LINE_WORDS, Line, PORTS, Sampler, map, program,
    },
    table::{
        DIRECTORY_HEAD, Entry, MAX_DIRECTORIES, MAX_GUARDS, MAX_NODES, MAX_SOURCES, MAX_STEPS,
        NODE_INTERVALS, WIDE_NODE_INTERVALS, flag,
    },
    verdict::{Action, Family, Reason, Verdict},
};

/// The version that was last described here, and its fingerprint.
const KNOWN: (u32, u64) = (3, 0x6e7a_c932_95bc_bc88);

#[test]
fn the_abi_does_not_change_without_its_version() {
    let description = description();
    let found = (ABI_VERSION, fnv1a(&description));
    assert!(
        found == KNOWN,
        "the shapes that the kernel program and user space share have changed, or their version has.\n\
         \n\
         known: version {}, fingerprint {:#018x}\n\
         found: version {}, fingerprint {:#018x}\n\
         \n\
         Maps that an older agent pinned are reused by every agent of the same version. So, if the\n\
         change has been released with this version already, or may have been: raise ABI_VERSION in\n\
         ebpf/src/abi.rs. Then set KNOWN in ebpf/tests/abi.rs to what was found.\n\
         \n\
         What was hashed:\n\
         {description}",
        KNOWN.0,
        KNOWN.1,
        found.0,
        found.1
    );
}

/// The layout in words, a line per fact.
fn description() -> String {
    let mut text = String::new();

    /// Describes a struct, and does not compile if it has other fields.
    macro_rules! shape {
        ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {{
            #[allow(dead_code, reason = "it is there to be compiled")]
            fn complete(value: &$name) {
                let $name { $($field),* } = value;
                $(let _: &$type = $field;)*
            }
            let (size, align) = (size_of::<$name>(), align_of::<$name>());
            writeln!(text, "{}: {size} bytes, aligned to {align}", stringify!($name)).unwrap();
            $({
                let (at, size) = (offset_of!($name, $field), size_of::<$type>());
                let (name, kind) = (stringify!($field), stringify!($type));
                writeln!(text, "  {name}: {kind} at {at}, {size} bytes").unwrap();
            })*
        }};
    }

    /// Describes constants.
    macro_rules! constants {
        ($($constant:path),* $(,)?) => {
            $(writeln!(text, "{} = {:?}", stringify!($constant), $constant).unwrap();)*
        };
    }

    shape!(Control { live: u32, epoch: u32, heads: [Head; 2] });
    shape!(Head {
        deadline: u64,
        base: u32,
        lines: u32,
        flags: u32,
        v4_nodes: u32,
        v4_directories: u32,
        v6_nodes: u32,
        v6_directories: u32,
        v6_low_nodes: u32,
        v6_below: u32,
        v6_above: u32,
        v4_shift: u32,
        v6_shift: u32,
        guards: [u32; GUARDS],
        ports: [u8; 2 * PORTS],
        v4_directory: [u32; DIRECTORY],
        v6_directory: [u32; DIRECTORY],
    });
    shape!(Counter { packets: u64, bytes: u64 });
    shape!(Counters { verdicts: [Counter; COUNTER_PLACES], sampler: Sampler });
    shape!(Sampler { epoch: u32, drops: u32 });
    shape!(Blocked { packets: u64, last_seen: u32, port: u16, protocol: u8, action: u8 });
    shape!(DropEvent {
        source: [u8; 16],
        destination: [u8; 16],
        weight: u32,
        length: u32,
        source_port: u16,
        port: u16,
        protocol: u8,
        action: u8,
        reason: u8,
        family: u8,
    });
    let Line(words) = Line::default();
    let _: [u32; LINE_WORDS] = words;
    writeln!(text, "Line: {} bytes, aligned to {}", size_of::<Line>(), align_of::<Line>()).unwrap();
    writeln!(text, "BlockedKey: {} bytes", size_of::<BlockedKey>()).unwrap();

    for action in Action::ALL {
        writeln!(text, "action {} = {}", action.name(), action as u8).unwrap();
    }
    for reason in Reason::ALL {
        writeln!(text, "reason {} = {}", reason.name(), reason as u8).unwrap();
    }
    for family in Family::ALL {
        writeln!(text, "family {} = {}", family.name(), family as u8).unwrap();
    }
    for action in Action::ALL {
        for reason in Reason::ALL {
            for family in Family::ALL {
                let index = Verdict::new(action, reason, family).place();
                let (action, reason, family) = (action.name(), reason.name(), family.name());
                writeln!(text, "counter {action} {reason} {family} = {index}").unwrap();
            }
        }
    }

    writeln!(text, "COUNTERS = {}", Verdict::COUNT).unwrap();
    constants!(
        COUNTER_PLACES,
        MAX_DIRECTORIES,
        DIRECTORY_HEAD,
        LINE_WORDS,
        flag::ENFORCE,
        flag::DESTINATIONS,
        GUARDS,
        PORTS,
        DIRECTORY,
        DIRECTORY_BITS,
        MAX_SOURCES,
        MAX_NODES,
        NODE_INTERVALS,
        WIDE_NODE_INTERVALS,
        MAX_STEPS,
        MAX_GUARDS,
        Entry::DESTINATION,
        map::CONTROL,
        map::TABLES,
        map::COUNTERS,
        map::BLOCKED,
        map::EVENTS,
        map::ALL,
        program::LINEAR,
        program::FRAGS,
        program::LAYER3,
    );
    for entry in [
        Entry::mask(u32::MAX),
        Entry::run(0, 0),
        Entry::run(1, 0),
        Entry::run(0, 1),
        Entry::directory(1),
    ] {
        writeln!(text, "entry {:#010x}", entry.0).unwrap();
    }

    for definition in map_definitions() {
        writeln!(text, "{definition}").unwrap();
    }
    text
}

/// The map definitions of the binary, which exist for the kernel's target only,
/// from its source.
fn map_definitions() -> Vec<String> {
    let source = include_str!("../src/kernel.rs");
    source
        .split("#[map]")
        .skip(1)
        .map(|definition| {
            let (definition, _) = definition.split_once(';').unwrap();
            definition.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect()
}

#[test]
fn every_map_of_the_binary_has_its_name_in_the_library() {
    let names: Vec<String> = map_definitions()
        .iter()
        .map(|definition| {
            let (name, _) = definition.split_once(':').unwrap();
            name.trim_start_matches("static ").to_owned()
        })
        .collect();
    assert_eq!(names, map::ALL);
}

#[test]
fn every_verdict_has_a_counter_of_its_own() {
    let mut places: Vec<u32> = Vec::new();
    for action in Action::ALL {
        for reason in Reason::ALL {
            for family in Family::ALL {
                let verdict = Verdict::new(action, reason, family);
                let parts = (verdict.action(), verdict.reason(), verdict.family());
                assert_eq!(parts, (action, reason, family));
                assert_eq!(verdict.passes(), action == Action::Pass);
                places.push(verdict.place());
            }
        }
    }
    places.sort_unstable();
    assert_eq!(places, (0..Verdict::COUNT).collect::<Vec<_>>());
}

/// The 64-bit FNV-1a hash.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

//! What exogate decides about a packet, and the memory it decides from.
//!
//! The same lines run in the kernel and on the host: the XDP program (this
//! package's binary), the agent that fills its tables, the unit and property
//! tests, and the differential tests all use this library. It is `no_std`,
//! holds no state and cannot panic.
//!
//! The way of a packet:
//!
//! 1. [`packet`] finds the addresses and the destination port, through a
//!    bounds-checked [`packet::Packet`].
//! 2. [`verdict`] decides: the guard on the destination port names the sources
//!    it accepts, [`table`] says which sources contain the address, and the
//!    packet passes if the two masks meet.
//! 3. The binary counts the [`verdict::Verdict`] and reports drops in the form
//!    that [`abi`] fixes.
//!
//! [`compile`] (host only) builds the table that step 2 reads, so that the
//! layout's writer and its reader stand side by side.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![allow(
    unsafe_code,
    reason = "packet headers and table lines are read through typed pointers; each use states its reason"
)]

pub mod abi;
#[cfg(not(target_arch = "bpf"))]
pub mod compile;
pub mod opaque;
pub mod packet;
pub mod table;
pub mod verdict;

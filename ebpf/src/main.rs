//! The XDP program: the maps, and the way from a context to a verdict.
//!
//! What is decided, and how, is the library's; this file only gives it the
//! packet and the tables, counts what came out and reports drops. On the host it
//! is an empty program, so that the whole workspace builds with one command.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(
    unsafe_code,
    reason = "a BPF program reads packets and maps through raw pointers; each use states its reason"
)]

#[cfg(target_arch = "bpf")]
mod kernel;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

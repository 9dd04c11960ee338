//! The lab: a small internet on one machine, with exogate at its edge.
//!
//! End-to-end tests and `cargo xtask run` share it. Nothing in it is simulated that
//! the kernel can do for real: hosts are network namespaces joined by veth pairs,
//! senders own addresses that Microsoft publishes, packets pass the agent's XDP
//! program, HTTPS is HTTPS. Only far ends that nobody can install are stand-ins.
//!
//! | module | owns |
//! |---|---|
//! | [`lab`] | namespaces, addresses, routes, files, and taking all of it down |
//! | [`service`] | a stand-in of Microsoft's endpoint service, and what can go wrong with it |
//! | [`server`] | real servers of the distribution: nginx, unbound, Prometheus |
//! | [`proxy`] | an HTTP proxy between the edge host and the service |
//! | [`peer`] | the server behind the gate, and single attempts to reach it |
//! | [`prober`] | a steady stream of attempts, to see each single wrong verdict |
//! | [`agent`] | the agent as a process: configuration, start, stop, questions |
//! | [`machine`] | a real systemd on the edge host, to install the package on |
//! | [`nats`] | a cluster of NATS servers, without the lab |
//! | [`notification`], [`load`], [`pega`] | senders for the relay, and the server behind it |
//! | [`server`], [`python`] | programs of others: nginx, unbound, Prometheus, exchangelib |
//! | [`guest`] | a machine of its own, whose power can be cut, or that boots in the edge host's place |
//! | [`terminal`] | a screen, for programs that draw |
//! | [`lists`], [`addresses`], [`random`] | lists of prefixes, addresses on them and not, chance that repeats itself |
//! | [`raw`] | bytes that no client would send |
//! | [`tls`], [`http`], [`process`], [`spooled`] | what these need |
//!
//! # When things fail
//!
//! All of it but [`nats`] needs root and says so. Every wait has an end, and an error tells what
//! was waited for and what the agent logged. However a test ends, its lab is taken
//! down: see `lab/janitor.rs`.

pub mod addresses;
pub mod agent;
pub mod guest;
pub mod http;
pub mod lab;
pub mod lists;
pub mod load;
pub mod machine;
pub mod nats;
pub mod notification;
pub mod peer;
pub mod pega;
pub mod prober;
pub mod process;
pub mod proxy;
pub mod python;
pub mod random;
pub mod raw;
pub mod server;
pub mod service;
pub mod spooled;
pub mod terminal;
pub mod tls;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what threads of the lab share. A thread that panicked has failed its test
/// already; the others need not.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

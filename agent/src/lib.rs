//! exogate stands on a Linux edge host in front of a server that Microsoft's
//! cloud must be able to reach, and nobody else.
//!
//! # The map
//!
//! An XDP program on the edge NIC judges every packet to the guarded ports. It is
//! the `exogate-ebpf` package, whose library this program shares. Around it:
//!
//! - [`source`] reads what others publish about addresses: Microsoft's endpoint
//!   web service, its list of Graph senders, fixed prefixes.
//! - [`allowlist`] decides which of it is believed, and remembers it: collect,
//!   vet, plan, publish, persist.
//! - [`gate`] has the program in the kernel and fills its tables. Only it and the
//!   `ebpf` package hold unsafe code.
//! - [`relay`] receives what the gate lets through, makes it durable and passes it
//!   on to the internal server.
//! - [`admin`] answers people, Prometheus and the command line.
//! - [`config`] turns a TOML file into checked types; [`telemetry`] logs and
//!   counts; [`tls`] is whom its clients trust.
//! - [`daemon`] starts, keeps and stops all of them; [`doctor`] looks at the host and at
//!   them from outside; [`cli`] is one file per command.
//!
//! # The arrows
//!
//! `cli -> daemon -> (allowlist, gate, relay, admin) -> source -> exogate-ebpf`.
//! `gate` knows nothing of Microsoft, `source` nothing of BPF, `relay` neither.
//!
//! # The rule
//!
//! A bad day elsewhere is never made worse here. Whatever cannot be fetched,
//! parsed or believed leaves the list in force as it is; whatever ends this
//! process leaves the filter in force as it is.

pub mod admin;
pub mod allowlist;
mod boot;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod gate;
mod listening;
mod random;
pub mod relay;
pub mod source;
mod state_file;
pub mod telemetry;
pub mod tls;

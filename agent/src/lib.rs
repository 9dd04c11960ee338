//! The map of the program.
//!
//! - [`config`]: TOML to validated types.
//! - [`source`]: where prefixes come from, each with its provenance.
//! - [`allowlist`]: the life of the allow-list, from the answer of a service to
//!   what the gate enforces and what is remembered of it.

pub mod allowlist;
pub mod config;
pub mod source;

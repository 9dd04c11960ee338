//! placeholder
pub mod allowlist;
pub mod config;
pub mod gate;
pub mod source;

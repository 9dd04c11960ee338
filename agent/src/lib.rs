//! placeholder
pub mod gate;

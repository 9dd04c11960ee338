//! placeholder
pub mod gate;
pub mod telemetry;

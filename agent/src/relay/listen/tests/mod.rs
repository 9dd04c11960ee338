//! Real listeners on loopback, with real clients and with hostile ones.

mod admission;
mod certificates;
mod draining;
mod framing;
mod lab;
mod limits;

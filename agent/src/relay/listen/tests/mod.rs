//! Real listeners on loopback, with real clients and with hostile ones.

mod admission;
mod certificates;
mod draining;
mod framing;
mod http2;
mod lab;
mod limits;
mod systemd;

//! The lab itself: what end-to-end tests rely on. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first thing that goes wrong"
)]

mod agent;
mod life;
mod prober;
mod senders;
mod service;

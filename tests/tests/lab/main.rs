//! The lab itself: what end-to-end tests rely on. Needs root.

mod agent;
mod life;
mod prober;
mod senders;
mod service;

//! A wire that carries millions of packets a second to the edge host of a lab, and
//! what they cost the host: shared by the benchmarks of packets.

mod flood;
mod list;
mod meanwhile;
mod probe;
mod sets;
mod twins;
mod wire;

pub use self::{
    flood::Flood,
    list::{List, Order, Share, family_name},
    meanwhile::meanwhile,
    probe::{Latency, Probes},
    sets::{ipset_script, nft_table},
    twins::{fill, twin, twins},
    wire::{OTHER_CORE, Wire, pin, receiver_core},
};

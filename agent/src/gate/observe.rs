//! What the program tells: counters, blocked sources and drop events.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    ops::Deref,
};

use aya::maps::{MapData, RingBuf};
use exogate_ebpf::{
    abi,
    packet::Packet as _,
    verdict::{Action, Family, Reason},
};
use serde::Serialize;
use tokio::io::{Interest, unix::AsyncFd};

use crate::gate::Error;

/// Lets the ABI's plain data into the BPF library's maps.
#[derive(Clone, Copy, Default)]
#[repr(transparent)]
pub(crate) struct Plain<T>(pub(crate) T);

// SAFETY: the ABI's types are plain by `packet::Plain`'s contract, and the
// wrapper has their layout.
unsafe impl<T: exogate_ebpf::packet::Plain + 'static> aya::Pod for Plain<T> {}

/// Packets and bytes of one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// What happened to them.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// Their network protocol.
    pub family: Family,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A source that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockedSource {
    /// Its address.
    pub address: IpAddr,
    /// Packets of it that were refused; an estimate under a flood.
    pub packets: u64,
    /// When it was last recorded, in seconds since 1970.
    pub last_seen: u32,
    /// IP protocol number of that packet.
    pub protocol: u8,
    /// Destination port of that packet.
    pub port: u16,
    /// What happened to that packet.
    pub action: &'static str,
}

impl BlockedSource {
    pub(crate) fn new(key: abi::BlockedKey, blocked: abi::Blocked) -> Self {
        Self {
            address: address(key),
            packets: blocked.packets,
            last_seen: blocked.last_seen,
            protocol: blocked.protocol,
            port: blocked.port,
            action: name(&Action::ALL, blocked.action, Action::name),
        }
    }
}

/// A recorded drop, or in monitor mode what would have been one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DropEvent {
    /// Source address.
    pub source: IpAddr,
    /// Destination address; unspecified if unknown.
    pub destination: IpAddr,
    /// Source port, 0 if unknown.
    pub source_port: u16,
    /// Destination port, 0 if unknown.
    pub port: u16,
    /// IP protocol number, 0 if unknown.
    pub protocol: u8,
    /// Length in bytes.
    pub length: u32,
    /// How many drops this one stands for.
    pub weight: u32,
    /// `drop` or `would_drop`.
    pub action: &'static str,
    /// Why.
    pub reason: &'static str,
    /// Network protocol.
    pub family: &'static str,
}

impl From<abi::DropEvent> for DropEvent {
    fn from(event: abi::DropEvent) -> Self {
        Self {
            source: address(event.source),
            destination: address(event.destination),
            source_port: event.source_port,
            port: event.port,
            protocol: event.protocol,
            length: event.length,
            weight: event.weight,
            action: name(&Action::ALL, event.action, Action::name),
            reason: name(&Reason::ALL, event.reason, Reason::name),
            family: name(&Family::ALL, event.family, Family::name),
        }
    }
}

/// The stream of drop events of one gate.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Result<Self, Error> {
        // SAFETY: the ring buffer owns its file descriptor, which is open and
        // stays the same until it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        ring.map(|ring| Self { ring }).map_err(|error| Error::Memory {
            action: "watching the drop event buffer",
            source: error.into(),
        })
    }

    /// The next event. Safe to cancel.
    ///
    /// # Errors
    ///
    /// If the buffer can no longer be watched.
    pub async fn next(&mut self) -> io::Result<DropEvent> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            if let Some(item) = guard.get_inner_mut().next() {
                if let Some(event) = item.deref().read::<abi::DropEvent>(0) {
                    return Ok(event.into());
                }
                continue;
            }
            guard.clear_ready();
        }
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

fn name<T: Copy>(all: &[T], number: u8, name: impl Fn(T) -> &'static str) -> &'static str {
    all.get(usize::from(number)).map_or("unknown", |&value| name(value))
}

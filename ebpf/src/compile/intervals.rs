//! From prefixes to the adjoining intervals that they cut an address space into.

use std::net::IpAddr;

use crate::{
    compile::{Error, Policy},
    table::{Entry, MAX_SOURCES},
};

/// A span of addresses with a mask: one prefix.
pub(super) struct Span {
    first: u128,
    last: u128,
    mask: u32,
}

/// The first address of an interval, and the mask that applies to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Boundary {
    pub(super) first: u128,
    pub(super) mask: u32,
}

/// The prefixes of a policy as spans, IPv4 and IPv6 apart.
pub(super) fn spans(policy: &Policy) -> Result<(Vec<Span>, Vec<Span>), Error> {
    let mut v4 = Vec::with_capacity(policy.prefixes.len());
    let mut v6 = Vec::new();
    let mut add = |address: IpAddr, length: u8, mask: u32| {
        let (bits, base, spans) = match address {
            IpAddr::V4(address) => (32u32, u128::from(address.to_bits()), &mut v4),
            IpAddr::V6(address) => (128, address.to_bits(), &mut v6),
        };
        let Some(free_bits) = bits.checked_sub(u32::from(length)) else {
            return Err(Error::PrefixLength { length });
        };
        // All ones in the free bits; a shift by 128 leaves none.
        let free = u128::MAX.checked_shr(128u32.saturating_sub(free_bits)).unwrap_or(0);
        spans.push(Span { first: base & !free, last: base | free, mask });
        Ok(())
    };
    for prefix in &policy.prefixes {
        if prefix.sources >> MAX_SOURCES != 0 {
            return Err(Error::SourceBit { sources: prefix.sources });
        }
        add(prefix.address, prefix.length, prefix.sources)?;
    }
    for &(address, length) in policy.destinations.iter().flatten() {
        add(address, length, Entry::DESTINATION)?;
    }
    Ok((v4, v6))
}

/// Cuts the space from 0 to `last` at every boundary. Prefixes are nested or
/// disjoint, so one pass over the sorted spans with a stack of the open ones is
/// enough.
pub(super) fn intervals(mut spans: Vec<Span>, last: u128) -> Vec<Boundary> {
    // Wider spans first among those that start together.
    spans.sort_unstable_by_key(|span| (span.first, !span.last));
    let mut boundaries = Vec::with_capacity(spans.len().saturating_mul(2).saturating_add(1));
    let mut open: Vec<(u128, u32)> = Vec::new();
    set(&mut boundaries, 0, 0);
    for span in &spans {
        close(&mut boundaries, &mut open, Some(span.first), last);
        let mask = open.last().map_or(0, |&(_, mask)| mask) | span.mask;
        set(&mut boundaries, span.first, mask);
        open.push((span.last, mask));
    }
    close(&mut boundaries, &mut open, None, last);
    boundaries
}

/// Ends the open spans that end before `before` (all for `None`).
fn close(
    boundaries: &mut Vec<Boundary>,
    open: &mut Vec<(u128, u32)>,
    before: Option<u128>,
    last: u128,
) {
    while let Some(&(end, _)) = open.last() {
        if before.is_some_and(|before| end >= before) {
            break;
        }
        open.pop();
        if end < last {
            let outer = open.last().map_or(0, |&(_, mask)| mask);
            set(boundaries, end.saturating_add(1), outer);
        }
    }
}

/// Starts an interval, replacing one that would be empty and leaving out one
/// that would change nothing.
fn set(boundaries: &mut Vec<Boundary>, first: u128, mask: u32) {
    if boundaries.last().is_some_and(|boundary| boundary.first == first) {
        boundaries.pop();
    }
    if boundaries.last().is_none_or(|boundary| boundary.mask != mask) {
        boundaries.push(Boundary { first, mask });
    }
}

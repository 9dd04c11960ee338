//! How much one source may take: connections at once, and requests in a second.
//!
//! A source is an IPv4 address or an IPv6 network of /64, which is what one site has.
//! Requests are counted in a bucket that holds a second's worth. What is known of a
//! source is forgotten once it has no connection and its bucket is full again, so what
//! is remembered is bounded by the connections of the listener and of the last second.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// So many sources are remembered before any of them is forgotten.
const PRUNE_AT: usize = 1024;

/// All sources of a listener.
#[derive(Debug)]
pub(super) struct Sources {
    connections: usize,
    requests: u32,
    known: Mutex<AllKnown>,
}

#[derive(Debug)]
struct AllKnown {
    all: HashMap<IpAddr, Known>,
    /// When there are so many, it is looked for those that can be forgotten.
    prune_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    connections: usize,
    /// When the bucket will be full.
    full_at: Instant,
}

impl Sources {
    /// `None` where there are no limits.
    pub(super) fn new(connections: Option<usize>, requests: Option<u32>) -> Option<Arc<Self>> {
        if connections.is_none() && requests.is_none() {
            return None;
        }
        let connections = connections.unwrap_or(usize::MAX);
        let requests = requests.unwrap_or(u32::MAX);
        let known = AllKnown { all: HashMap::new(), prune_at: PRUNE_AT };
        Some(Arc::new(Self { connections, requests, known: Mutex::new(known) }))
    }

    /// A place for a connection, if the source has one left.
    pub(super) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        let source = site(source);
        let now = Instant::now();
        let mut known = self.known();
        if known.all.len() >= known.prune_at {
            known.all.retain(|_, one| one.connections > 0 || one.full_at > now);
            known.prune_at = known.all.len().saturating_mul(2).max(PRUNE_AT);
        }
        let one = known.all.entry(source).or_insert(Known { connections: 0, full_at: now });
        if one.connections >= self.connections {
            return None;
        }
        one.connections = one.connections.saturating_add(1);
        Some(Place { sources: Arc::clone(self), source })
    }

    fn known(&self) -> MutexGuard<'_, AllKnown> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source's place for a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    sources: Arc<Sources>,
    source: IpAddr,
}

impl Place {
    /// Whether the source may make a request now; it counts as made then.
    pub(super) fn admits(&self) -> bool {
        let requests = self.sources.requests;
        if requests == u32::MAX {
            return true;
        }
        let now = Instant::now();
        let (second, each) = (Duration::from_secs(1), Duration::from_secs(1).checked_div(requests));
        let mut known = self.sources.known();
        let Some(one) = known.all.get_mut(&self.source) else { return true };
        let taken = one.full_at.max(now).checked_add(each.unwrap_or(second));
        match taken.filter(|at| at.saturating_duration_since(now) <= second) {
            Some(at) => {
                one.full_at = at;
                true
            }
            None => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut known = self.sources.known();
        if let Some(one) = known.all.get_mut(&self.source) {
            one.connections = one.connections.saturating_sub(1);
            if one.connections == 0 && one.full_at <= now {
                known.all.remove(&self.source);
            }
        }
    }
}

fn site(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_has_so_many_connections_and_others_have_theirs() {
        let sources = Sources::new(Some(2), None).unwrap();
        let first = sources.enter(source("192.0.2.1")).unwrap();
        let _second = sources.enter(source("::ffff:192.0.2.1")).unwrap();
        assert!(sources.enter(source("192.0.2.1")).is_none());
        assert!(sources.enter(source("192.0.2.2")).is_some());
        drop(first);
        assert!(sources.enter(source("192.0.2.1")).is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let sources = Sources::new(Some(1), None).unwrap();
        let _one = sources.enter(source("2001:db8::1")).unwrap();
        assert!(sources.enter(source("2001:db8::2")).is_none());
        assert!(sources.enter(source("2001:db8:0:1::2")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_has_so_many_requests_in_a_second_over_all_connections() {
        let sources = Sources::new(None, Some(10)).unwrap();
        let one = sources.enter(source("192.0.2.1")).unwrap();
        assert_eq!((0..20).filter(|_| one.admits()).count(), 10);
        // Another connection brings no new ones.
        drop(one);
        let one = sources.enter(source("192.0.2.1")).unwrap();
        assert!(!one.admits());
        assert!(sources.enter(source("192.0.2.2")).unwrap().admits());
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!((0..20).filter(|_| one.admits()).count(), 5);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..20).filter(|_| one.admits()).count(), 10, "no more than a second's worth");
    }

    #[tokio::test(start_paused = true)]
    async fn sources_that_are_gone_are_forgotten() {
        let sources = Sources::new(None, Some(10)).unwrap();
        for number in 0..=u16::MAX {
            let [high, low] = number.to_be_bytes();
            let place = sources.enter(IpAddr::from([10, 0, high, low])).unwrap();
            place.admits();
            drop(place);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(sources.known().all.len() <= PRUNE_AT);
    }
}

//! Which server of a pool is asked first, and which ones after it.

use std::{
    cmp::Reverse,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use super::{Pool, server::Server};
use crate::config::Balance;

impl Pool {
    /// Each server that takes requests once, the one to ask first at the front. Of
    /// requests that come from no client `source` is none.
    pub(super) fn order(&self, source: Option<IpAddr>) -> std::vec::IntoIter<&Arc<Server>> {
        let mut order: Vec<_> = self.servers.iter().filter(|server| !server.is_drained()).collect();
        match self.balance {
            Balance::Failover => {}
            Balance::RoundRobin => {
                let next = self.next.fetch_add(1, Ordering::Relaxed);
                let first = next.checked_rem(order.len()).unwrap_or(0);
                order.rotate_left(first);
            }
            Balance::LeastConnections => {
                // In turn among equals, or the first one would get all that is quick.
                let next = self.next.fetch_add(1, Ordering::Relaxed);
                let first = next.checked_rem(order.len()).unwrap_or(0);
                order.rotate_left(first);
                order.sort_by_key(|server| server.load());
            }
            Balance::Source => {
                if let Some(source) = source {
                    order.sort_by_cached_key(|server| Reverse(affinity(source, &server.name)));
                }
            }
        }
        order.into_iter()
    }
}

/// Servers that an operator takes out of service.
impl Pool {
    /// Sends nothing new to a server, or to all of them; or does so again. What is under
    /// way goes on.
    ///
    /// # Errors
    ///
    /// If there is no such server, in a sentence.
    pub fn set_drained(&self, server: Option<&str>, drained: bool) -> Result<(), String> {
        let is_meant = |one: &&Arc<Server>| server.is_none_or(|name| one.name == name);
        let mut meant = self.servers.iter().filter(is_meant).peekable();
        if meant.peek().is_none() {
            let names: Vec<_> = self.servers.iter().map(|server| server.name.as_str()).collect();
            let server = server.unwrap_or_default();
            return Err(format!("there is no server {server:?}; there are {}", names.join(", ")));
        }
        meant.for_each(|server| server.set_drained(drained));
        // Whoever waits for a server looks again.
        self.changed.send_replace(());
        Ok(())
    }

    /// Whether an operator has taken all servers out of service.
    pub fn is_drained(&self) -> bool {
        self.servers.iter().all(|server| server.is_drained())
    }
}

/// How much a source belongs to a server. When a server goes, only its own sources go
/// elsewhere, and when it comes back they return (rendezvous hashing).
fn affinity(source: IpAddr, server: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (source.to_canonical(), server).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner<'a>(source: u8, servers: &[&'a str]) -> &'a str {
        let source = IpAddr::from([192, 0, 2, source]);
        servers.iter().copied().max_by_key(|server| affinity(source, server)).unwrap()
    }

    #[test]
    fn a_server_that_goes_moves_only_its_own_sources() {
        let all = ["a:443", "b:443", "c:443"];
        let mut each = [0; 3];
        for source in 0..=255 {
            let before = owner(source, &all);
            let after = owner(source, &["a:443", "c:443"]);
            assert!(before == after || before == "b:443", "{source} left {before} for {after}");
            each[all.iter().position(|server| *server == before).unwrap()] += 1;
        }
        assert!(each.iter().all(|sources| *sources > 40), "{each:?}");
    }

    #[test]
    fn an_address_in_ipv6_form_is_the_address() {
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(affinity(mapped, "a"), affinity(IpAddr::from([192, 0, 2, 1]), "a"));
    }
}

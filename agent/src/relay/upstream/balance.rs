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
    use std::collections::BTreeSet;

    use prometheus::Registry;
    use tokio::time::Instant;

    use super::{
        super::{
            Metrics,
            stand_in::{PATIENCE, upstream},
        },
        *,
    };

    /// A pool of three servers, which nobody asks.
    fn pool(balance: Balance) -> Arc<Pool> {
        let mut upstream = upstream(&[]);
        let server = |name| format!("http://{name}.example.com").parse().unwrap();
        upstream.servers = ["a", "b", "c"].map(server).to_vec();
        upstream.balance = balance;
        Pool::new(&upstream, &Metrics::register(&Registry::new()).unwrap()).unwrap()
    }

    /// Who is asked first, by the first letter of its name.
    fn first(pool: &Pool, source: Option<IpAddr>) -> String {
        let server = pool.order(source).next().unwrap();
        server.name.split('.').next().unwrap().to_owned()
    }

    #[tokio::test]
    async fn the_server_with_the_fewest_connections_is_asked_first() {
        let pool = pool(Balance::LeastConnections);
        let [a, b, c] = &pool.servers[..] else { panic!("three servers") };
        a.pinned(true);
        c.pinned(true);
        assert_eq!([0; 4].map(|_| first(&pool, None)), ["b"; 4]);
        // A request under way counts as much as a connection that a client owns.
        let soon = Instant::now() + PATIENCE;
        let held = b.enter(soon).await.ok().unwrap();
        b.pinned(true);
        c.pinned(true);
        assert_eq!([0; 4].map(|_| first(&pool, None)), ["a"; 4]);
        drop(held);
        let among_equals: BTreeSet<_> = (0..6).map(|_| first(&pool, None)).collect();
        assert_eq!(among_equals.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        let last: BTreeSet<_> =
            (0..6).map(|_| pool.order(None).next_back().unwrap().name.clone()).collect();
        assert_eq!(last.into_iter().collect::<Vec<_>>(), [c.name.as_str()]);
    }

    #[tokio::test]
    async fn a_source_stays_with_its_server_while_that_takes_requests() {
        let pool = pool(Balance::Source);
        let owners = |pool: &Pool| {
            let source = |source| Some(IpAddr::from([192, 0, 2, source]));
            (0..=255).map(|number| first(pool, source(number))).collect::<Vec<_>>()
        };
        let before = owners(&pool);
        assert_eq!(owners(&pool), before);
        for server in ["a", "b", "c"] {
            assert!(before.iter().filter(|owner| *owner == server).count() > 40, "{before:?}");
        }
        pool.set_drained(Some(&pool.servers[1].name), true).unwrap();
        for (before, after) in before.iter().zip(owners(&pool)) {
            assert!(*before == after || before == "b" && after != "b");
        }
        pool.set_drained(None, false).unwrap();
        assert_eq!(owners(&pool), before, "they return");
        // What comes from no client has no server of its own.
        assert_eq!(first(&pool, None), "a");
    }

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

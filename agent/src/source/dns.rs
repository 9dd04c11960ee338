//! Addresses of DNS names.
//!
//! For partners and probes that have a name and no promise of an address. Both
//! families are asked for, by absolute names, so that no search domain and no
//! hosts file can answer instead. A name that cannot be resolved keeps the
//! addresses that it last had: DNS fails more often than partners move. A name
//! that resolves to nothing counts as failed, too.
//!
//! Whoever answers for the name decides who passes. The resolver asks the
//! servers of `/etc/resolv.conf`, or those that the source names.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    lookup::Lookup,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use ipnet::IpNet;

use super::{Entry, Origin};

/// Most addresses of one name and family.
const MAX_ADDRESSES: usize = 1000;
/// Answers are asked for again after their TTL, but not sooner or later than
/// this.
const SOONEST: Duration = Duration::from_secs(30);
const LATEST: Duration = Duration::from_secs(3600);

/// Why names could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no resolver.
    #[error("the resolver cannot be set up: {0}")]
    Setup(String),
    /// None of the names has an answer.
    #[error("resolving {0}")]
    Unresolved(String),
}

impl Error {
    /// The reason as a metric label.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Setup(_) => "setup",
            Self::Unresolved(_) => "unresolved",
        }
    }
}

/// What the names resolve to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Their addresses.
    pub entries: Vec<Entry>,
    /// Names that could not be resolved, with the reason; they have their last
    /// addresses.
    pub failed: Vec<String>,
    /// When to ask again.
    pub valid_for: Duration,
}

/// Resolves names; one that fails keeps its entries of `before`.
///
/// # Errors
///
/// If all fail. See [`Error`].
pub async fn resolve(
    names: &[String],
    servers: &[SocketAddr],
    timeout: Duration,
    before: &[Entry],
) -> Result<Resolved, Error> {
    let resolver = resolver(servers, timeout).map_err(|error| Error::Setup(error.to_string()))?;
    let answers =
        futures_util::future::join_all(names.iter().map(|name| addresses(&resolver, name))).await;
    let mut resolved = Resolved { entries: Vec::new(), failed: Vec::new(), valid_for: LATEST };
    for (name, answer) in names.iter().zip(answers) {
        match answer {
            Ok((addresses, valid_for)) => {
                let origin = Origin::Dns { name: Arc::from(name.as_str()) };
                resolved.entries.extend(
                    addresses.into_iter().map(|address| Entry {
                        prefix: IpNet::from(address),
                        origin: origin.clone(),
                    }),
                );
                resolved.valid_for = resolved.valid_for.min(valid_for);
            }
            Err(problem) => {
                let kept = before.iter().filter(
                    |entry| matches!(&entry.origin, Origin::Dns { name: of } if **of == **name),
                );
                resolved.entries.extend(kept.cloned());
                resolved.failed.push(format!("{name} failed: {problem}"));
                resolved.valid_for = SOONEST;
            }
        }
    }
    if resolved.failed.len() == names.len() {
        return Err(Error::Unresolved(resolved.failed.join("; ")));
    }
    resolved.valid_for = resolved.valid_for.clamp(SOONEST, LATEST);
    Ok(resolved)
}

fn resolver(servers: &[SocketAddr], timeout: Duration) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        Resolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|server| {
            let on_port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let connections =
                vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    // Two attempts have to fit into the time of one poll.
    options.timeout = timeout.div_f64(2.0).min(Duration::from_secs(5));
    options.attempts = 1;
    builder.build()
}

async fn addresses(
    resolver: &TokioResolver,
    name: &str,
) -> Result<(Vec<IpAddr>, Duration), String> {
    let absolute = format!("{}.", name.trim_end_matches('.'));
    let (v4, v6) = tokio::join!(
        resolver.ipv4_lookup(absolute.as_str()),
        resolver.ipv6_lookup(absolute.as_str())
    );
    let mut addresses = Vec::new();
    let mut valid_for = LATEST;
    for (family, answer) in [("A", v4), ("AAAA", v6)] {
        match answer {
            Ok(answer) => {
                let left = answer.valid_until().saturating_duration_since(Instant::now());
                valid_for = valid_for.min(left);
                addresses.extend(records(&answer));
            }
            // A name need not have both families.
            Err(error) if error.is_no_records_found() => {}
            Err(error) => return Err(format!("{family}: {error}")),
        }
    }
    if addresses.is_empty() {
        return Err("it has no address".to_owned());
    }
    Ok((addresses, valid_for))
}

fn records(answer: &Lookup) -> impl Iterator<Item = IpAddr> + '_ {
    let address = |data: &RData| match data {
        RData::A(v4) => Some(IpAddr::V4(v4.0)),
        RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
        _ => None,
    };
    answer.answers().iter().filter_map(move |record| address(&record.data)).take(MAX_ADDRESSES)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{
        collections::BTreeMap,
        sync::{Arc as Shared, Mutex},
    };

    use tokio::net::UdpSocket;

    use super::*;

    /// Names to addresses with a TTL; a name without entry is a SERVFAIL.
    pub(crate) type Zone = Shared<Mutex<BTreeMap<String, (Vec<IpAddr>, u32)>>>;

    /// A DNS server on the loopback.
    pub(crate) async fn serve(zone: Zone) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; 1500];
            loop {
                let (length, peer) = socket.recv_from(&mut query).await.unwrap();
                let answer = answer(&query[..length], &zone.lock().unwrap());
                socket.send_to(&answer, peer).await.unwrap();
            }
        });
        address
    }

    #[allow(clippy::arithmetic_side_effects, reason = "offsets within a small test message")]
    fn answer(query: &[u8], zone: &BTreeMap<String, (Vec<IpAddr>, u32)>) -> Vec<u8> {
        let mut labels = Vec::new();
        let mut at = 12;
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
            at = end;
        }
        let question = &query[12..at + 5];
        let kind = query[at + 2];
        let found = zone.get(&labels.join("."));
        let code = if found.is_some() { 0x80 } else { 0x82 };
        let mut records = Vec::new();
        let mut count = 0u8;
        let (addresses, ttl) = found.cloned().unwrap_or_default();
        for address in addresses {
            let data = match address {
                IpAddr::V4(v4) if kind == 1 => v4.octets().to_vec(),
                IpAddr::V6(v6) if kind == 28 => v6.octets().to_vec(),
                _ => continue,
            };
            count += 1;
            records.extend([0xc0, 12, 0, kind, 0, 1]);
            records.extend(ttl.to_be_bytes());
            records.extend([0, u8::try_from(data.len()).unwrap()]);
            records.extend(data);
        }
        let mut answer = vec![query[0], query[1], 0x81, code, 0, 1, 0, count, 0, 0, 0, 0];
        answer.extend(question);
        answer.extend(records);
        answer
    }

    fn zone(names: &[(&str, &[&str], u32)]) -> Zone {
        let names = names.iter().map(|(name, addresses, ttl)| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            ((*name).to_owned(), (addresses, *ttl))
        });
        Shared::new(Mutex::new(names.collect()))
    }

    async fn ask(zone: &Zone, names: &[&str], before: &[Entry]) -> Result<Resolved, Error> {
        let server = serve(Shared::clone(zone)).await;
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        resolve(&names, &[server], Duration::from_secs(2), before).await
    }

    fn texts(resolved: &Resolved) -> Vec<String> {
        let mut texts: Vec<_> =
            resolved.entries.iter().map(|entry| entry.prefix.to_string()).collect();
        texts.sort();
        texts
    }

    #[tokio::test]
    async fn both_families_are_taken_for_as_long_as_they_are_valid() {
        let zone = zone(&[
            ("probe.example", &["40.1.2.3", "2603:1006::7"], 300),
            ("other.example", &["40.1.2.4"], 90),
        ]);
        let resolved = ask(&zone, &["probe.example", "Other.Example."], &[]).await.unwrap();
        assert_eq!(texts(&resolved), ["2603:1006::7/128", "40.1.2.3/32", "40.1.2.4/32"]);
        assert!((85..=90).contains(&resolved.valid_for.as_secs()), "{:?}", resolved.valid_for);
        assert!(resolved.failed.is_empty());
    }

    #[tokio::test]
    async fn a_name_that_fails_keeps_its_last_addresses() {
        let zone = zone(&[("a.example", &["40.1.2.3"], 300), ("b.example", &["40.1.2.4"], 1)]);
        let before = ask(&zone, &["a.example", "b.example"], &[]).await.unwrap();
        assert_eq!(before.valid_for, SOONEST, "a TTL of a second is no reason to hurry");
        zone.lock().unwrap().remove("b.example");
        zone.lock().unwrap().insert("a.example".to_owned(), (vec!["40.1.2.5".parse().unwrap()], 9));
        let after = ask(&zone, &["a.example", "b.example"], &before.entries).await.unwrap();
        assert_eq!(texts(&after), ["40.1.2.4/32", "40.1.2.5/32"]);
        assert_eq!(after.failed.len(), 1);
        zone.lock().unwrap().clear();
        let error = ask(&zone, &["a.example", "b.example"], &before.entries).await.unwrap_err();
        assert_eq!(error.name(), "unresolved");
        assert!(error.to_string().contains("a.example"), "{error}");
    }

    #[tokio::test]
    async fn a_name_without_addresses_counts_as_failed() {
        let zone = zone(&[("empty.example", &[], 300)]);
        let error = ask(&zone, &["empty.example"], &[]).await.unwrap_err();
        assert!(error.to_string().contains("no address"), "{error}");
    }
}

//! What happens around the agent: interfaces, addresses and signals.

use std::{fs, io, net::IpAddr, time::Duration};

use futures_util::{StreamExt as _, future::pending};
use rtnetlink::MulticastGroup;
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::daemon::Error;

/// Changes come in bursts. The first is looked at at once, because an interface may be
/// open until then, and what follows within this time is looked at together.
const BURST: Duration = Duration::from_millis(20);

/// Tells when interfaces or addresses have changed.
pub(super) struct Changes {
    connection: JoinHandle<()>,
    messages: Messages,
    /// Whether there was a change that nobody was told of yet.
    heard: bool,
    not_before: Option<Instant>,
}

type Messages = futures_util::stream::BoxStream<'static, ()>;

impl Changes {
    /// Subscribes to the kernel's notices.
    pub(super) fn subscribe() -> io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ])?;
        Ok(Self {
            connection: tokio::spawn(connection),
            messages: messages.map(drop).boxed(),
            heard: false,
            not_before: None,
        })
    }

    /// Waits for changes. Safe to cancel: what was heard is told by the next call.
    pub(super) async fn next(&mut self) {
        if !self.heard {
            if self.messages.next().await.is_none() {
                tracing::warn!("the kernel no longer tells of network changes");
                pending::<()>().await;
            }
            self.heard = true;
        }
        if let Some(time) = self.not_before {
            sleep_until(time).await;
        }
        while futures_util::FutureExt::now_or_never(self.messages.next()).flatten().is_some() {}
        self.heard = false;
        self.not_before = Instant::now().checked_add(BURST);
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The addresses of this host, sorted.
///
/// # Errors
///
/// If the kernel does not tell them. That is not the same as none: no address would mean that
/// nothing is guarded.
pub(super) fn local_addresses() -> Result<Vec<IpAddr>, Error> {
    let failed = |source: nix::Error| Error::Watch {
        what: "the addresses of this host",
        source: source.into(),
    };
    let mut addresses: Vec<IpAddr> = nix::ifaddrs::getifaddrs()
        .map_err(failed)?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// Whether the kernel forwards packets between interfaces.
pub(crate) fn is_forwarding() -> bool {
    ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"]
        .iter()
        .any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim() != "0"))
}

/// What a signal asks for.
pub(super) enum Order {
    /// Read the configuration again.
    Reload,
    /// End; the name of the signal.
    Stop(&'static str),
}

/// The signals that the agent obeys.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Error> {
        let watch = |kind| signal(kind).map_err(|source| Error::Watch { what: "signals", source });
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }

    /// The next order. Safe to cancel.
    pub(super) async fn next(&mut self) -> Order {
        select! {
            _ = self.terminate.recv() => Order::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Order::Stop("SIGINT"),
            _ = self.hangup.recv() => Order::Reload,
        }
    }
}

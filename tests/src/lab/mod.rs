//! A small internet: an edge host, a router, and three senders.
//!
//! ```text
//!   exchange ──┐
//!   graph    ──┼── wan ── edge0 [edge]
//!   stranger ──┘    │
//!                   └─ 192.0.2.10 the endpoint service, 192.0.2.20 a proxy
//! ```
//!
//! Each host is a network namespace, each line a veth pair. The router `wan` also
//! holds the stand-ins, so that the edge host reaches them through the interface
//! that is guarded, as in life: answers to the agent's own requests must pass.
//!
//! A lab is made and taken down in well under a second and shares nothing with any
//! other, so each test has its own. It is a handle: agents, services and probers
//! hold clones, and the last one to go takes the lab down.

mod janitor;
mod namespace;
mod plan;

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    unistd::geteuid,
};

use self::janitor::Janitor;
pub(crate) use self::namespace::Background;
pub use self::{
    namespace::Namespace,
    plan::{EDGE_INTERFACE, EXCHANGE_SINCE_2020, Family, PROXY, Peer, SERVICE, SERVICE_V6, edge},
};
use crate::{
    lock,
    peer::{Reached, reach},
    process::check,
    tls::Authority,
};

/// How long the wires may take to carry packets.
const WIRING: Duration = Duration::from_secs(10);
/// A port where nobody listens: an attempt to connect is refused by the edge host.
const SILENT_PORT: u16 = 9;

/// The namespaces, the files and the certificate authority.
#[derive(Clone, Debug)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    edge: Namespace,
    wan: Namespace,
    peers: [(Peer, Namespace); 3],
    authority: Authority,
    // Last, because it takes down all of the above.
    janitor: Mutex<Janitor>,
    directory: PathBuf,
}

impl Lab {
    /// Makes a lab in which every sender reaches the edge host, over IPv4 and IPv6.
    ///
    /// # Errors
    ///
    /// Without root, or if the kernel refuses any part.
    pub fn new() -> Result<Self> {
        ensure!(
            geteuid().is_root(),
            "the lab needs root: it makes network namespaces and loads BPF programs"
        );
        janitor::sweep()?;
        let name = janitor::unique_name();
        let janitor = Janitor::start(&name)?;
        let create = |host: &str| Namespace::create(format!("{name}-{host}"));
        let peer = |peer: Peer| anyhow::Ok((peer, create(peer.name())?));
        let directory = janitor.directory().to_owned();
        let lab = Self {
            inner: Arc::new(Inner {
                edge: create("edge")?,
                wan: create("wan")?,
                peers: [peer(Peer::Exchange)?, peer(Peer::Graph)?, peer(Peer::Stranger)?],
                authority: Authority::new()?,
                janitor: Mutex::new(janitor),
                directory,
            }),
        };
        lab.make_files()?;
        lab.wire()?;
        lab.check_wiring()?;
        Ok(lab)
    }

    /// Takes the lab down, and tells whether anything is left.
    ///
    /// # Errors
    ///
    /// If something of the lab cannot be removed, or is still in use by an agent, a
    /// service or a prober.
    pub fn close(self) -> Result<()> {
        let Some(inner) = Arc::into_inner(self.inner) else {
            bail!("the lab is still in use by an agent, a service or a prober");
        };
        lock(&inner.janitor).finish()
    }

    /// The name that its namespaces and its directory start with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.directory().file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The host that the agent runs on.
    #[must_use]
    pub fn edge(&self) -> &Namespace {
        &self.inner.edge
    }

    /// The router, and the host of the stand-ins.
    #[must_use]
    pub fn wan(&self) -> &Namespace {
        &self.inner.wan
    }

    /// The host of a sender.
    #[must_use]
    pub fn peer(&self, peer: Peer) -> &Namespace {
        let [(_, exchange), (_, graph), (_, stranger)] = &self.inner.peers;
        match peer {
            Peer::Exchange => exchange,
            Peer::Graph => graph,
            Peer::Stranger => stranger,
        }
    }

    /// The authority that signs every certificate in the lab.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.inner.authority
    }

    /// A directory for the files of this lab alone.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// A BPF file system of the lab's own, for `gate.pin_directory`.
    #[must_use]
    pub fn pin_directory(&self) -> PathBuf {
        self.directory().join("bpf")
    }

    /// The certificate of [`Lab::authority`], for `feed.ca_file`.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.directory().join("ca.pem")
    }

    /// Gives a sender one more address to send from.
    ///
    /// # Errors
    ///
    /// If the sender has it already.
    pub fn add_source(&self, peer: Peer, address: IpAddr) -> Result<()> {
        let (length, flags) = match Family::of(address) {
            Family::V4 => (32, ""),
            Family::V6 => (128, "nodad"),
        };
        let host = format!("address add {address}/{length} dev eth0 {flags}\n");
        self.peer(peer).ip(&host)?;
        self.wan().ip(&format!("route add {address}/{length} dev {}\n", peer.name()))
    }

    /// Adds an interface without an Ethernet header to the edge host.
    ///
    /// # Errors
    ///
    /// If the name is taken or the kernel has no tun devices.
    pub fn add_tunnel(&self, name: &str) -> Result<()> {
        self.edge().ip(&format!("tuntap add dev {name} mode tun\nlink set {name} up\n"))
    }

    /// Takes the edge host's interface away, as when a card is pulled.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub fn remove_edge_interface(&self) -> Result<()> {
        self.edge().ip(&format!("link delete {EDGE_INTERFACE}\n"))
    }

    /// Gives the edge host its interface, under the same name and addresses.
    ///
    /// # Errors
    ///
    /// If it is there already.
    pub fn add_edge_interface(&self) -> Result<()> {
        self.link(self.edge(), plan::edge_link)
    }

    /// Takes the edge host off the net, for a guest that has its place: its network card is
    /// the tap of [`Lab::guest_card`].
    ///
    /// # Errors
    ///
    /// If the kernel has no tap devices.
    pub fn replace_edge_by_guest(&self) -> Result<()> {
        self.remove_edge_interface()?;
        self.wan().ip(&plan::guest_tap())
    }

    /// The network card of a guest in the edge host's place, as options of a qemu that runs
    /// in [`Lab::wan`].
    #[must_use]
    pub fn guest_card() -> [String; 4] {
        let card = format!("virtio-net-pci,netdev=edge,mac={}", plan::GUEST_HARDWARE);
        let tap = "tap,id=edge,ifname=edge,script=no,downscript=no";
        ["-netdev".to_owned(), tap.to_owned(), "-device".to_owned(), card]
    }

    /// What configures the network of a guest in the edge host's place, as commands of
    /// `ip`; `interface` is its name for the card.
    #[must_use]
    pub fn guest_network(interface: &str) -> String {
        plan::guest_side(interface)
    }

    /// Takes all addresses and routes of a family from the edge host's interface, as on
    /// a host that never had them.
    ///
    /// # Errors
    ///
    /// If the interface is not there.
    pub fn forget_family(&self, family: Family) -> Result<()> {
        let option = match family {
            Family::V4 => "-4",
            Family::V6 => "-6",
        };
        let mut command = Command::new("ip");
        command.args(["-netns", self.edge().name(), option]);
        check(command.args(["address", "flush", "dev", EDGE_INTERFACE]), "").map(drop)
    }

    /// Mounts a disk of this many bytes in the lab's directory, for what happens when
    /// it is full.
    ///
    /// # Errors
    ///
    /// If there is one of that name already.
    pub fn small_disk(&self, name: &str, bytes: usize) -> Result<PathBuf> {
        let path = self.directory().join(name);
        fs::create_dir(&path)?;
        let options = format!("size={bytes},mode=0700");
        mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .context("a tmpfs cannot be mounted")?;
        Ok(path)
    }

    fn make_files(&self) -> Result<()> {
        // In memory: what a disk takes to sync after a build is no business of a test's. What
        // is lost with the power has a test with a disk of its own.
        mount(Some("tmpfs"), self.directory(), Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .context("a tmpfs cannot be mounted")?;
        let pins = self.pin_directory();
        fs::create_dir(&pins)?;
        mount(Some("bpf"), &pins, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .context("a BPF file system cannot be mounted")?;
        fs::write(self.ca_file(), self.authority().pem())?;
        Ok(())
    }

    fn wire(&self) -> Result<()> {
        self.wan().sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        self.wan().ip(&format!(
            "address add {SERVICE}/32 dev lo
             address add {SERVICE_V6}/128 dev lo nodad
             address add {PROXY}/32 dev lo\n"
        ))?;
        self.add_edge_interface()?;
        for (peer, host) in &self.inner.peers {
            self.link(host, |namespace| plan::peer_link(*peer, namespace))?;
        }
        Ok(())
    }

    fn link(&self, host: &Namespace, plan: impl FnOnce(&str) -> (String, String)) -> Result<()> {
        let (router_side, host_side) = plan(host.name());
        self.wan().ip(&router_side)?;
        host.ip(&host_side)
    }

    fn check_wiring(&self) -> Result<()> {
        let begin = Instant::now();
        for peer in Peer::ALL {
            for family in Family::ALL {
                while !self.carries(peer, family)? {
                    ensure!(
                        begin.elapsed() < WIRING,
                        "{} does not reach the edge host over {family:?}",
                        peer.name()
                    );
                    thread::sleep(Duration::from_millis(10));
                }
            }
        }
        Ok(())
    }

    fn carries(&self, peer: Peer, family: Family) -> Result<bool> {
        let target = SocketAddr::new(edge(family), SILENT_PORT);
        let source = peer.address(family);
        let patience = Duration::from_millis(200);
        self.peer(peer).run_async(WIRING, || async move {
            Ok(matches!(reach(source, target, patience).await, Ok(Reached::Refused)))
        })
    }
}

//! The receiver: the edge host's interface, what it took, and what that cost.
//!
//! The interface is served by a thread of its own (threaded NAPI), whose CPU time the
//! kernel counts in nanoseconds and without what else the machine does. It comes before
//! all other work on its core, so that a sender on the same core is interrupted for it
//! at once.

use std::{
    fs,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use exogate_tests::{
    lab::{EDGE_INTERFACE, Family, Lab, edge},
    process::check,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use socket2::{Domain, SockRef, Socket, Type};

/// The router's end.
const SENDER: &str = "edge";

/// The core for all that is not to disturb the receiver.
pub const OTHER_CORE: usize = 0;

/// A lab, the way into it, and the thread that receives.
pub struct Wire {
    lab: Lab,
    thread: i32,
    sender: u32,
    receiver: u32,
    addresses: [[u8; 6]; 2],
    /// Where what passes ends.
    _server: UdpSocket,
}

/// What the interface has seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Packets taken from the wire.
    pub received: u64,
    /// Of these, handed to UDP or whatever they are for.
    pub delivered: u64,
    /// What it cost.
    pub cpu: Duration,
}

impl Counts {
    /// Nanoseconds of CPU for each packet received since then.
    pub fn cost_since(&self, before: &Self) -> f64 {
        let received = self.received - before.received;
        (self.cpu - before.cpu).as_nanos() as f64 / received as f64
    }
}

impl Wire {
    /// A new lab whose receiver works on this core.
    pub fn new(core: usize) -> Result<Self> {
        let lab = Lab::new()?;
        // A veth takes frames of XDP only if its peer looks for them.
        inside(&lab, &format!("ethtool -K {EDGE_INTERFACE} gro on"))?;
        let before = napi_threads()?;
        inside(&lab, &format!("echo 1 > /sys/class/net/{EDGE_INTERFACE}/threaded"))?;
        let thread = napi_threads()?
            .into_iter()
            .find(|thread| !before.contains(thread))
            .context("the interface has no thread of its own")?;
        pin(thread, core)?;
        check(Command::new("chrt").args(["--fifo", "--pid", "1", &thread.to_string()]), "")?;
        let (sender, here) = link(&mut lab.wan().command("ip"), SENDER)?;
        let (receiver, there) = link(&mut lab.edge().command("ip"), EDGE_INTERFACE)?;
        let server = lab.edge().run(|| {
            let socket = server(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 443)))?;
            // What does not fit is dropped, so that it need not be read.
            SockRef::from(&socket).set_recv_buffer_size(1)?;
            Ok(socket)
        })?;
        Ok(Self { lab, thread, sender, receiver, addresses: [here, there], _server: server })
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The number of the interface to send out of, in the router's namespace.
    pub fn sender(&self) -> u32 {
        self.sender
    }

    /// The number of the edge host's interface.
    pub fn receiver(&self) -> u32 {
        self.receiver
    }

    /// The Ethernet addresses of sender and receiver.
    pub fn addresses(&self) -> [[u8; 6]; 2] {
        self.addresses
    }

    /// Waits until no XDP program is attached: the kernel detaches one a moment after its
    /// link is gone.
    pub fn wait_until_free(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let mut command = self.lab.edge().command("ip");
            let text = check(command.args(["link", "show", "dev", EDGE_INTERFACE]), "")?;
            if !text.contains("xdp") {
                return Ok(());
            }
            ensure!(begin.elapsed() < Duration::from_secs(5), "a program is still attached");
        }
    }

    /// What was seen until now, once the receiver has come to rest.
    pub fn settled(&self) -> Result<Counts> {
        let begin = Instant::now();
        let mut counts = self.counts()?;
        loop {
            thread::sleep(Duration::from_millis(2));
            let next = self.counts()?;
            if next.received == counts.received {
                return Ok(next);
            }
            counts = next;
            ensure!(begin.elapsed() < Duration::from_secs(5), "the receiver does not come to rest");
        }
    }

    /// What was seen until now.
    pub fn counts(&self) -> Result<Counts> {
        let read = |path: &'static str| {
            self.lab
                .edge()
                .run(|| fs::read_to_string(format!("/proc/thread-self/net/{path}")).context(path))
        };
        Ok(Counts {
            received: received(&read("dev")?).context("/proc/net/dev has another form")?,
            delivered: delivered(&read("snmp")?, &read("snmp6")?)
                .context("/proc/net/snmp has another form")?,
            cpu: cpu_time(self.thread)?,
        })
    }

    /// The address to send to.
    pub fn destination(family: Family) -> std::net::IpAddr {
        edge(family)
    }
}

/// The core that receives: the last one, since the first has interrupts to serve.
pub fn receiver_core() -> usize {
    thread::available_parallelism().map_or(0, |cores| cores.get() - 1)
}

/// Keeps a thread, 0 for the one that calls, on one core.
pub fn pin(thread: i32, core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    sched_setaffinity(Pid::from_raw(thread), &cores)
        .with_context(|| format!("thread {thread} cannot be kept on core {core}"))
}

/// A socket of UDP whose port others may have, too.
pub fn server(address: SocketAddr) -> Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Runs a line of shell with the /sys of the edge host's namespace.
fn inside(lab: &Lab, line: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", lab.edge().name(), "sh", "-c", line]);
    check(&mut command, "").map(drop)
}

/// The threads of all edge hosts' interfaces.
fn napi_threads() -> Result<Vec<i32>> {
    let wanted = format!("napi/{EDGE_INTERFACE}-");
    let processes = fs::read_dir("/proc")?.filter_map(|entry| {
        let number = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{number}/comm")).ok()?;
        name.starts_with(&wanted).then_some(number)
    });
    Ok(processes.collect())
}

fn cpu_time(thread: i32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{thread}/schedstat"))?;
    let first = text.split(' ').next().context("/proc/schedstat has another form")?;
    Ok(Duration::from_nanos(first.parse()?))
}

/// Number and Ethernet address of an interface.
fn link(command: &mut Command, name: &str) -> Result<(u32, [u8; 6])> {
    let text = check(command.args(["-json", "link", "show", "dev", name]), "")?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let number = links.pointer("/0/ifindex").and_then(serde_json::Value::as_u64);
    let address = links.pointer("/0/address").and_then(serde_json::Value::as_str);
    let (number, address) = number.zip(address).context("ip has another form")?;
    let mut bytes = [0; 6];
    for (byte, text) in bytes.iter_mut().zip(address.split(':')) {
        *byte = u8::from_str_radix(text, 16)?;
    }
    Ok((u32::try_from(number)?, bytes))
}

fn received(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(EDGE_INTERFACE))?;
    line.trim_start_matches(':').split_whitespace().nth(1)?.parse().ok()
}

fn delivered(snmp: &str, snmp6: &str) -> Option<u64> {
    let mut rows = snmp.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (rows.next()?, rows.next()?);
    let place = names.split(' ').position(|name| name == "InDelivers")?;
    let v4: u64 = values.split(' ').nth(place)?.parse().ok()?;
    let line = snmp6.lines().find(|line| line.starts_with("Ip6InDelivers"))?;
    let v6: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    v4.checked_add(v6)
}

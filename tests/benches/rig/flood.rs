//! The sender: frames that the kernel makes and a BPF program sends.

use std::{
    env,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::Array,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use etherparse::PacketBuilder;
use exogate_tests::lab::{Family, Namespace};

/// Frames in one system call, and frames that the kernel sends together.
const FRAMES: u32 = 1 << 16;
const BATCH: u32 = 256;
/// Sources that `ebpf/examples/flood.rs` has room for.
const SOURCES: usize = 1 << 16;
/// Where the checksum is that depends on the source: IPv4's header, IPv6's UDP.
const IPV4_CHECKSUM: usize = 24;
const IPV6_UDP_CHECKSUM: usize = 60;
const IPV4_UDP_CHECKSUM: usize = 40;

/// What is sent, from where.
pub struct Flood {
    ebpf: Ebpf,
    family: Family,
    frame: Vec<u8>,
}

/// A source as `ebpf/examples/flood.rs` has it: address, checksum, and nothing.
type Source = [u8; 24];

impl Flood {
    /// Packets of UDP to port 443 of `destination`, out of the interface with this
    /// number and from these sources in turn, at most 65,536.
    pub fn new(
        interface: u32,
        addresses: [[u8; 6]; 2],
        destination: IpAddr,
        sources: &[IpAddr],
    ) -> Result<Self> {
        let path = env::var("EXOGATE_FLOOD_OBJECT")
            .context("EXOGATE_FLOOD_OBJECT is not set; start this by `cargo xtask bench`")?;
        ensure!(sources.len() <= SOURCES, "{} sources", sources.len());
        let family = Family::of(destination);
        let mut ebpf =
            EbpfLoader::new().override_global("INTERFACE", &interface, true).load_file(path)?;
        let frames: Vec<Vec<u8>> =
            sources.iter().map(|source| frame(addresses, *source, destination)).collect();
        let mut map = Array::<_, Source>::try_from(ebpf.map_mut("SOURCES").context("SOURCES")?)?;
        for (number, (address, frame)) in sources.iter().zip(&frames).enumerate() {
            let at = match family {
                Family::V4 => IPV4_CHECKSUM,
                Family::V6 => IPV6_UDP_CHECKSUM,
            };
            let mut source: Source = [0; 24];
            match address {
                IpAddr::V4(v4) => source[..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => source[..16].copy_from_slice(&v6.octets()),
            }
            source[16..18].copy_from_slice(&frame[at..at + 2]);
            map.set(number as u32, source, 0)?;
        }
        let turn = (sources.len() as u64) << 32;
        Array::<_, u64>::try_from(ebpf.map_mut("TURN").context("TURN")?)?.set(0, turn, 0)?;
        let program: &mut Xdp = ebpf.program_mut(name(family)).context("no program")?.try_into()?;
        program.load()?;
        let frame = frames.into_iter().next().context("no sources")?;
        Ok(Self { ebpf, family, frame })
    }

    /// Sends for so long, from a thread in the interface's namespace and on one core.
    /// Returns how many frames that were; those for which there was no room in the
    /// receiver's queue are among them.
    pub fn run(&self, namespace: &Namespace, core: usize, time: Duration) -> Result<u64> {
        namespace.run(|| {
            super::wire::pin(0, core)?;
            let program: &Xdp =
                self.ebpf.program(name(self.family)).context("no program")?.try_into()?;
            let (begin, mut sent) = (Instant::now(), 0);
            while begin.elapsed() < time {
                program.test_run(TestRunOptions {
                    data_in: Some(&self.frame),
                    repeat: FRAMES,
                    attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                    ..TestRunOptions::new()
                })?;
                sent += u64::from(FRAMES);
            }
            anyhow::Ok(sent)
        })
    }

    /// Sends while `work` is done.
    pub fn run_during<T: Send>(
        &self,
        namespace: &Namespace,
        core: usize,
        work: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(work);
            while !worker.is_finished() {
                self.run(namespace, core, Duration::from_millis(200))?;
            }
            worker.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
        })
    }
}

fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "flood_v4",
        Family::V6 => "flood_v6",
    }
}

/// The shortest frame that Ethernet has, or for IPv6 a little more: with a payload of
/// 18 bytes.
fn frame(addresses: [[u8; 6]; 2], source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(addresses[0], addresses[1]);
    let ip = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ethernet.ipv4(source.octets(), destination.octets(), 64)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ethernet.ipv6(source.octets(), destination.octets(), 64)
        }
        // Families are not mixed by any caller.
        _ => ethernet.ipv4([0; 4], [0; 4], 64),
    };
    let mut frame = Vec::new();
    // Writing to memory cannot fail.
    let _ = ip.udp(50_000, 443).write(&mut frame, &[0; 18]);
    if source.is_ipv4() {
        // No checksum, as RFC 768 allows: it would depend on the source, too.
        frame[IPV4_UDP_CHECKSUM..IPV4_UDP_CHECKSUM + 2].fill(0);
    }
    frame
}

//! Time-stamped packets from a source that every list has, beside a flood: how long a packet
//! that passes takes from one socket to the other.
//!
//! One thread sends and receives, so that one clock is read and nobody is woken in between.
//! It comes before all other work on its core, which is not the receiver's.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use exogate_tests::{lab::Family, process::check};
use nix::unistd::gettid;

use super::{
    Wire, meanwhile,
    wire::{OTHER_CORE, pin, server},
};

/// Between two packets.
const INTERVAL: Duration = Duration::from_millis(1);
/// How long a packet is waited for before the next one is sent. One that comes later counts
/// with the time that it took.
const PATIENCE: Duration = Duration::from_millis(50);

/// Two sockets: the router's, with a listed source, and the edge host's.
pub struct Probes {
    sender: UdpSocket,
    receiver: UdpSocket,
}

/// How long packets took.
#[derive(Default)]
pub struct Latency {
    /// Microseconds, sorted.
    times: Vec<f64>,
    sent: usize,
}

impl Probes {
    /// Packets of this source.
    pub fn new(wire: &Wire, source: IpAddr) -> Result<Self> {
        let lab = wire.lab();
        let (length, flags) = match Family::of(source) {
            Family::V4 => (32, ""),
            Family::V6 => (128, "nodad"),
        };
        lab.wan().ip(&format!("address add {source}/{length} dev lo {flags}\n"))?;
        let target = SocketAddr::new(Wire::destination(Family::of(source)), 443);
        let sender = lab.wan().run(|| {
            let socket = UdpSocket::bind((source, 0))?;
            socket.connect(target)?;
            Ok(socket)
        })?;
        let receiver = lab.edge().run(|| {
            // Being connected, it goes before the one that takes all others.
            let socket = server(target)?;
            socket.connect(sender.local_addr()?)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })?;
        Ok(Self { sender, receiver })
    }

    /// Sends and receives while `work` is done.
    pub fn run_during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Latency)> {
        meanwhile(|stop| self.run(stop), work)
    }

    fn run(&self, stop: &AtomicBool) -> Result<Latency> {
        pin(0, OTHER_CORE)?;
        check(Command::new("chrt").args(["--fifo", "--pid", "1", &gettid().to_string()]), "")?;
        let (mut sent, mut times) = (Vec::new(), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            sent.push(Instant::now());
            self.sender.send(&(sent.len() as u64 - 1).to_le_bytes())?;
            self.receive(&sent, &mut times)?;
            thread::sleep(INTERVAL);
        }
        // Those that come after their time.
        self.receive(&sent, &mut times)?;
        times.sort_by(f64::total_cmp);
        Ok(Latency { times, sent: sent.len() })
    }

    /// Receives until the latest one is there, or patience has ended.
    fn receive(&self, sent: &[Instant], times: &mut Vec<f64>) -> Result<()> {
        let mut bytes = [0; 8];
        loop {
            match self.receiver.recv(&mut bytes) {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let number = usize::try_from(u64::from_le_bytes(bytes))?;
            let begin = sent.get(number).context("a packet that was not sent")?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
            if number + 1 == sent.len() {
                return Ok(());
            }
        }
    }
}

impl Latency {
    /// Counts those of another time in.
    pub fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.times.sort_by(f64::total_cmp);
        self.sent += other.sent;
    }

    /// Microseconds that this share of the packets did not exceed.
    pub fn quantile(&self, share: f64) -> f64 {
        let place = (share * self.times.len() as f64) as usize;
        self.times.get(place.min(self.times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }

    /// How many packets there were.
    pub fn sent(&self) -> usize {
        self.sent
    }

    /// How many of them came.
    pub fn arrived(&self) -> usize {
        self.times.len()
    }
}

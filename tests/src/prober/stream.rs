//! The sending and the receiving side of the prober.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use tokio::{
    net::{TcpListener, UdpSocket},
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

use super::{Flow, Gap, Plan};
use crate::{
    lab::edge,
    lock,
    peer::{Reached, reach},
    prober::report::{Count, Datagrams, Handshakes},
};

/// How long a TCP attempt may last: the first SYN and one repetition.
const HANDSHAKE: Duration = Duration::from_millis(2_500);
/// When the kernel repeats a SYN (TCP_TIMEOUT_INIT).
const REPETITION: Duration = Duration::from_secs(1);

/// What happened to the probes of one flow.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// When each datagram was sent, since the prober began.
    sent: Vec<Duration>,
    /// How often each arrived.
    arrived: Vec<u8>,
    handshakes: Handshakes,
}

impl Numbers {
    pub(super) fn count(&self) -> Count {
        let arrivals = || {
            self.sent.iter().enumerate().map(|(number, sent)| {
                (number, *sent, self.arrived.get(number).copied().unwrap_or(0))
            })
        };
        let mut gaps: Vec<Gap> = Vec::new();
        let mut last_missing = None;
        for (number, sent, _) in arrivals().filter(|(_, _, times)| *times == 0) {
            match gaps.last_mut().filter(|_| last_missing == number.checked_sub(1)) {
                Some(gap) => {
                    gap.missing = gap.missing.saturating_add(1);
                    gap.until = sent;
                }
                None => gaps.push(Gap { from: sent, until: sent, missing: 1 }),
            }
            last_missing = Some(number);
        }
        let arrived = arrivals().filter(|(_, _, times)| *times > 0);
        let times: Vec<_> = arrived.map(|(_, sent, _)| sent).collect();
        let datagrams = Datagrams {
            sent: self.sent.len(),
            arrived: times.len(),
            duplicates: arrivals().filter(|(_, _, times)| *times > 1).count(),
            first: times.first().copied(),
            last: times.last().copied(),
            gaps,
        };
        Count { datagrams, handshakes: self.handshakes }
    }

    fn arrive(&mut self, number: usize) {
        if number >= self.arrived.len() {
            self.arrived.resize(number.saturating_add(1), 0);
        }
        if let Some(times) = self.arrived.get_mut(number) {
            *times = times.saturating_add(1);
        }
    }
}

/// Sends the datagrams and makes the attempts of one sender, until told to stop.
pub(super) async fn send_all(
    flows: Vec<(Flow, Arc<Mutex<Numbers>>)>,
    plan: Plan,
    begin: Instant,
    sending: Arc<AtomicBool>,
) -> Result<()> {
    try_join_all(flows.into_iter().map(|(flow, numbers)| {
        let (plan, sending) = (&plan, &sending);
        async move {
            let (numbers_sent, until) = (Arc::clone(&numbers), Arc::clone(sending));
            let datagrams = send_datagrams(flow, numbers_sent, plan, begin, until);
            tokio::try_join!(datagrams, shake_hands(flow, numbers, plan, sending)).map(drop)
        }
    }))
    .await
    .map(drop)
}

async fn send_datagrams(
    flow: Flow,
    numbers: Arc<Mutex<Numbers>>,
    plan: &Plan,
    begin: Instant,
    sending: Arc<AtomicBool>,
) -> Result<()> {
    let socket = std::net::UdpSocket::bind(SocketAddr::new(flow.peer.address(flow.family), 0))?;
    let target = SocketAddr::new(edge(flow.family), plan.port);
    let every = plan.datagram_every;
    // A thread of its own: the runtime's clock has no parts of a millisecond.
    let sender = spawn_blocking(move || {
        let mut next = Instant::now();
        while sending.load(Ordering::Relaxed) {
            // Noted before it is sent, because it may arrive before it could be after.
            let number = {
                let mut numbers = lock(&numbers);
                numbers.sent.push(begin.elapsed());
                numbers.sent.len().saturating_sub(1)
            };
            let payload = u64::try_from(number)?.to_be_bytes();
            socket.send_to(&payload, target).with_context(|| format!("{flow} cannot send"))?;
            // Who was late does not make up for it by a burst.
            next = next.checked_add(every).unwrap_or(next).max(Instant::now());
            sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    });
    sender.await?
}

async fn shake_hands(
    flow: Flow,
    numbers: Arc<Mutex<Numbers>>,
    plan: &Plan,
    sending: &AtomicBool,
) -> Result<()> {
    let mut ticks = interval(plan.handshake_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let target = SocketAddr::new(edge(flow.family), plan.port);
    let mut attempts = JoinSet::new();
    while sending.load(Ordering::Relaxed) {
        ticks.tick().await;
        while attempts.try_join_next().transpose()?.is_some() {}
        let numbers = Arc::clone(&numbers);
        attempts.spawn(async move {
            let begin = Instant::now();
            let outcome = reach(flow.peer.address(flow.family), target, HANDSHAKE).await;
            let count = &mut lock(&numbers).handshakes;
            let counter = match &outcome {
                Ok(reached) if reached.passed() && begin.elapsed() < REPETITION => {
                    &mut count.passed
                }
                Ok(reached) if reached.passed() => &mut count.late,
                Ok(_) => &mut count.dropped,
                Err(_) => &mut count.failed,
            };
            *counter = counter.saturating_add(1);
            if let Ok(Reached::Answered(stream)) = outcome {
                // A reset leaves nothing behind; thousands of closed connections would.
                drop(stream.set_zero_linger());
            }
        });
    }
    while attempts.join_next().await.transpose()?.is_some() {}
    Ok(())
}

/// Notes what arrives from whom.
pub(super) async fn receive(
    socket: std::net::UdpSocket,
    flows: BTreeMap<IpAddr, Arc<Mutex<Numbers>>>,
) -> Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    loop {
        let mut payload = [0; 8];
        let (length, source) = match socket.recv_from(&mut payload).await {
            Ok(received) => received,
            // Says that an earlier answer was refused; none was sent.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error.into()),
        };
        // Others may send to this port too.
        let Some(numbers) = flows.get(&source.ip()).filter(|_| length == payload.len()) else {
            continue;
        };
        lock(numbers).arrive(usize::try_from(u64::from_be_bytes(payload))?);
    }
}

/// Accepts connections and lets them go.
pub(super) async fn accept(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        // A prober hangs up at once; that is no fault.
        drop(listener.accept().await);
    }
}

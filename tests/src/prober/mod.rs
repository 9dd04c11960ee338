//! A steady stream of attempts to reach the edge host, to see each wrong verdict.
//!
//! A gate that is right before a restart and right after it may still have been
//! open, or shut, for a few milliseconds in between. The prober looks at every one
//! of them: each sender sends numbered datagrams at a steady rate to a guarded port,
//! and a receiver on the edge host notes which ones arrive. A number that is missing
//! was dropped, whatever the load of the machine; a gap tells when, and how long.
//!
//! TCP attempts go along. There the sender's own kernel sends the SYN again after a
//! second, which blurs the picture: an attempt that succeeds only after that is
//! counted as late, and says that the first SYN was dropped, or that the machine was
//! busy. So late ones are reported and not judged.

mod knock;
mod report;
mod stream;

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use self::stream::Numbers;
pub use self::{
    knock::{Knocking, Knocks},
    report::{Datagrams, Flow, Gap, Handshakes, Report},
};
use crate::{
    lab::{Background, Family, Lab, Peer, edge},
    lock,
    peer::HTTPS,
};

/// Room for several seconds of datagrams, should the receiver not be scheduled.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How long the last packets may be on their way.
const SETTLE: Duration = Duration::from_millis(300);

/// Who probes, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The senders.
    pub peers: Vec<Peer>,
    /// The guarded port, for UDP and TCP.
    pub port: u16,
    /// The time between two datagrams of one sender and family.
    pub datagram_every: Duration,
    /// The time between two TCP attempts of one sender and family.
    pub handshake_every: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            peers: Peer::ALL.to_vec(),
            port: HTTPS,
            datagram_every: Duration::from_millis(5),
            handshake_every: Duration::from_millis(50),
        }
    }
}

impl Plan {
    /// A listed sender and a stranger, close enough to see a moment of a millisecond, or of half
    /// a one in long trials, where it takes a good part of a core: a machine that stands still
    /// for a moment with more on the way would lose packets by itself.
    #[must_use]
    pub fn dense() -> Self {
        Self {
            peers: vec![Peer::Exchange, Peer::Stranger],
            datagram_every: Duration::from_micros(if env::var_os("EXOGATE_SOAK").is_some() {
                400
            } else {
                1_000
            }),
            ..Self::default()
        }
    }
}

/// The running prober.
#[derive(Debug)]
pub struct Prober {
    begin: Instant,
    plan: Plan,
    sending: Arc<AtomicBool>,
    flows: BTreeMap<Flow, Arc<Mutex<Numbers>>>,
    senders: Vec<Background>,
    _receivers: Vec<Background>,
    _lab: Lab,
}

impl Prober {
    /// Starts to probe, from every sender and over both families.
    ///
    /// The prober listens on the port by itself; if a server does already, TCP
    /// attempts go to that one.
    ///
    /// # Errors
    ///
    /// If another prober listens on the UDP port.
    pub fn start(lab: &Lab, plan: Plan) -> Result<Self> {
        let begin = Instant::now();
        let mut flows = BTreeMap::new();
        for peer in &plan.peers {
            for family in Family::ALL {
                flows.insert(Flow { peer: *peer, family }, Arc::default());
            }
        }
        let mut receivers = Vec::new();
        for family in Family::ALL {
            receivers.extend(receive(lab, family, &plan, &flows)?);
        }
        let sending = Arc::new(AtomicBool::new(true));
        let mut senders = Vec::new();
        for peer in &plan.peers {
            let mine = flows.iter().filter(|(flow, _)| flow.peer == *peer);
            let mine = mine.map(|(flow, numbers)| (*flow, Arc::clone(numbers))).collect::<Vec<_>>();
            let (plan, sending) = (plan.clone(), Arc::clone(&sending));
            let host = lab.peer(*peer);
            senders.push(host.serve(move || stream::send_all(mine, plan, begin, sending))?);
        }
        let lab = lab.clone();
        Ok(Self { begin, plan, sending, flows, senders, _receivers: receivers, _lab: lab })
    }

    /// What has been sent and has arrived so far. The last packets may still be on
    /// their way.
    #[must_use]
    pub fn report(&self) -> Report {
        let flows = self.flows.iter().map(|(flow, numbers)| (*flow, lock(numbers).count()));
        Report::new(flows, self.plan.datagram_every)
    }

    /// How long the prober has run.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Stops, once everything that was sent has arrived or been dropped.
    ///
    /// # Errors
    ///
    /// If a sender failed for a reason of its own.
    pub fn stop(mut self) -> Result<Report> {
        self.sending.store(false, Ordering::Relaxed);
        // Attempts that were begun are brought to their end.
        self.senders.drain(..).try_for_each(Background::join)?;
        thread::sleep(SETTLE);
        Ok(self.report())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        // The threads that send look at nothing else.
        self.sending.store(false, Ordering::Relaxed);
    }
}

/// Starts what listens on the edge host, for one family.
fn receive(
    lab: &Lab,
    family: Family,
    plan: &Plan,
    flows: &BTreeMap<Flow, Arc<Mutex<Numbers>>>,
) -> Result<Vec<Background>> {
    let address = SocketAddr::new(edge(family), plan.port);
    let socket = lab.edge().datagram(address)?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).context("no larger receive buffer")?;
    let sources: BTreeMap<IpAddr, _> = flows
        .iter()
        .map(|(flow, numbers)| (flow.peer.address(flow.family), Arc::clone(numbers)))
        .collect();
    let mut receivers = vec![lab.edge().serve(move || stream::receive(socket, sources))?];
    // Taken by the server under test, which will do.
    if let Ok(listener) = lab.edge().listen(address) {
        receivers.push(lab.edge().serve(move || stream::accept(listener))?);
    }
    Ok(receivers)
}

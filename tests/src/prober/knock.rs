//! Attempts to connect to a host that is not up yet.
//!
//! The prober listens on the edge host; nobody can listen on one that is switched off. So
//! this counts what comes back to the sender, whoever it is that answers there: a
//! connection that is accepted, and one that is refused.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::{
    lab::{Background, Family, Lab, Peer, edge},
    lock,
    peer::reach,
};

/// The time between two attempts of a family.
const EVERY: Duration = Duration::from_millis(20);
/// How long an attempt lasts. The next one begins before, so a host that answers for a
/// moment only is met by one.
const PATIENCE: Duration = Duration::from_millis(900);

/// What came of the attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knocks {
    /// Attempts over both families.
    pub made: usize,
    /// Those that the edge host answered, in whatever way.
    pub answered: usize,
}

/// A sender that goes on trying.
#[derive(Debug)]
pub struct Knocking {
    going_on: Arc<AtomicBool>,
    knocks: Arc<Mutex<Knocks>>,
    sender: Background,
    _lab: Lab,
}

impl Knocking {
    /// Starts to try a TCP port of the edge host, over both families.
    ///
    /// # Errors
    ///
    /// If the sender's namespace cannot be entered.
    pub fn start(lab: &Lab, peer: Peer, port: u16) -> Result<Self> {
        let going_on = Arc::new(AtomicBool::new(true));
        let knocks = Arc::default();
        let sender = lab.peer(peer).serve({
            let (going_on, knocks) = (Arc::clone(&going_on), Arc::clone(&knocks));
            async move || {
                let knock = |family| knock_all(peer, family, port, &going_on, &knocks);
                try_join_all(Family::ALL.map(knock)).await.map(drop)
            }
        })?;
        Ok(Self { going_on, knocks, sender, _lab: lab.clone() })
    }

    /// Stops when every attempt has ended.
    ///
    /// # Errors
    ///
    /// If one failed for a reason of its own.
    pub fn stop(self) -> Result<Knocks> {
        self.going_on.store(false, Ordering::Relaxed);
        self.sender.join()?;
        Ok(*lock(&self.knocks))
    }
}

async fn knock_all(
    peer: Peer,
    family: Family,
    port: u16,
    going_on: &AtomicBool,
    knocks: &Mutex<Knocks>,
) -> Result<()> {
    let (source, target) = (peer.address(family), SocketAddr::new(edge(family), port));
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut attempts = JoinSet::new();
    while going_on.load(Ordering::Relaxed) {
        ticks.tick().await;
        attempts.spawn(reach(source, target, PATIENCE));
        while let Some(attempt) = attempts.try_join_next() {
            count(attempt??.passed(), knocks);
        }
    }
    while let Some(attempt) = attempts.join_next().await {
        count(attempt??.passed(), knocks);
    }
    Ok(())
}

fn count(answered: bool, knocks: &Mutex<Knocks>) {
    let mut knocks = lock(knocks);
    knocks.made = knocks.made.saturating_add(1);
    knocks.answered = knocks.answered.saturating_add(usize::from(answered));
}

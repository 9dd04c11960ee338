//! What the prober saw.

use std::{collections::BTreeMap, fmt, time::Duration};

use anyhow::{Result, bail};

use crate::lab::{Family, Peer};

/// One sender over one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// The sender.
    pub peer: Peer,
    /// The family.
    pub family: Family,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} over {:?}", self.peer.name(), self.family)
    }
}

/// Datagrams that did not arrive, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the first of them was sent, since the prober began.
    pub from: Duration,
    /// When the last of them was sent.
    pub until: Duration,
    /// How many there are.
    pub missing: usize,
}

/// What happened to the datagrams of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Datagrams {
    /// How many were sent.
    pub sent: usize,
    /// How many arrived.
    pub arrived: usize,
    /// How many arrived more than once.
    pub duplicates: usize,
    /// When the first that arrived was sent, since the prober began.
    pub first: Option<Duration>,
    /// When the last that arrived was sent.
    pub last: Option<Duration>,
    /// What did not arrive.
    pub gaps: Vec<Gap>,
}

/// What happened to the TCP attempts of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Answered by the edge host at once.
    pub passed: usize,
    /// Answered after the SYN was repeated.
    pub late: usize,
    /// Not answered at all.
    pub dropped: usize,
    /// Failed for a reason of the sender's own.
    pub failed: usize,
}

impl Handshakes {
    fn answered(&self) -> usize {
        self.passed.saturating_add(self.late)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Count {
    pub(super) datagrams: Datagrams,
    pub(super) handshakes: Handshakes,
}

impl Count {
    fn all_passed(&self) -> bool {
        self.datagrams.gaps.is_empty() && self.handshakes.dropped == 0
    }
}

/// What happened to all flows.
#[derive(Clone, Debug)]
pub struct Report {
    flows: BTreeMap<Flow, Count>,
    datagram_every: Duration,
}

impl Report {
    pub(super) fn new(
        flows: impl Iterator<Item = (Flow, Count)>,
        datagram_every: Duration,
    ) -> Self {
        Self { flows: flows.collect(), datagram_every }
    }

    /// The datagrams of a flow.
    #[must_use]
    pub fn datagrams(&self, peer: Peer, family: Family) -> Datagrams {
        let count = self.flows.get(&Flow { peer, family });
        count.map(|count| count.datagrams.clone()).unwrap_or_default()
    }

    /// The TCP attempts of a flow.
    #[must_use]
    pub fn handshakes(&self, peer: Peer, family: Family) -> Handshakes {
        let count = self.flows.get(&Flow { peer, family });
        count.map(|count| count.handshakes).unwrap_or_default()
    }

    /// Checks that everything of the `allowed` senders passed, and nothing of any
    /// other.
    ///
    /// # Errors
    ///
    /// Lists each flow that had a wrong verdict, or too few probes to tell.
    pub fn expect_only(&self, allowed: &[Peer]) -> Result<()> {
        self.expect(|flow, count| match allowed.contains(&flow.peer) {
            true => count.all_passed(),
            false => count.datagrams.arrived == 0 && count.handshakes.answered() == 0,
        })
    }

    /// Checks that everything of the `allowed` senders passed, and that every other one
    /// passed until it was shut out, once and for good.
    ///
    /// # Errors
    ///
    /// See [`Report::expect_only`].
    pub fn expect_shut_once(&self, allowed: &[Peer]) -> Result<()> {
        self.expect(|flow, count| {
            if allowed.contains(&flow.peer) {
                return count.all_passed();
            }
            let Datagrams { gaps, last, .. } = &count.datagrams;
            matches!((gaps.as_slice(), last), ([shut], Some(last)) if *last < shut.from)
        })
    }

    fn expect(&self, is_right: impl Fn(&Flow, &Count) -> bool) -> Result<()> {
        let is_wrong = |flow: &Flow, count: &Count| {
            let enough = count.datagrams.sent > 0 && count.handshakes.failed == 0;
            !enough || !is_right(flow, count)
        };
        let wrong = self.flows.iter().filter(|(flow, count)| is_wrong(flow, count));
        let wrong: Vec<_> = wrong.map(|(flow, _)| flow.to_string()).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("wrong verdicts for {}\n{self}", wrong.join(", "));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a datagram every {:?}:", self.datagram_every)?;
        for (flow, Count { datagrams, handshakes }) in &self.flows {
            let Datagrams { sent, arrived, duplicates, first, last, gaps } = datagrams;
            write!(f, "{flow}: {arrived} of {sent} datagrams arrived")?;
            if let (Some(first), Some(last)) = (first, last) {
                write!(f, ", sent from {first:.3?} to {last:.3?}")?;
            }
            writeln!(f, ", {duplicates} twice; TCP: {handshakes:?}")?;
            for Gap { from, until, missing } in gaps.iter().take(10) {
                writeln!(f, "  {missing} missing from {from:.3?} to {until:.3?}")?;
            }
        }
        Ok(())
    }
}

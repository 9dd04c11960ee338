//! What is done with one record when its turn has come: read, try, settle.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Metrics,
    target::{Attempt, Failure, Target},
};
use crate::relay::spool::{Death, Entry, Error, Spool};

/// What is decided about a record.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// The upstream has it.
    Delivered {
        /// A fact to remember.
        remember: Option<String>,
    },
    /// It is given up.
    Dead(Death),
}

impl Ending {
    /// Whether the upstream said so, as one that is well.
    const fn is_an_answer(&self) -> bool {
        matches!(self, Self::Delivered { .. } | Self::Dead(Death::Refused { .. }))
    }
}

/// How a task ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The record is no longer in the queue.
    Settled {
        /// Whether the upstream answered as one that is well.
        well: bool,
    },
    /// It was decided, but the spool could not write that down. It must not be
    /// tried again.
    Unsettled { ending: Ending, well: bool },
    /// It is to be tried again.
    Failed(Failure),
    /// No server could be asked.
    NotTried,
}

/// Why nothing is decided about a record.
enum Undecided {
    /// It has been settled before, by another host or by its age.
    Gone,
    NotTried,
    Failed(Failure),
}

/// A record on its way.
pub(super) struct Task {
    pub(super) spool: Arc<dyn Spool>,
    pub(super) metrics: Metrics,
    pub(super) entry: Arc<Entry>,
    /// When to give up.
    pub(super) deadline: Instant,
}

impl Task {
    /// Tries to deliver it.
    pub(super) async fn deliver(self, target: Arc<dyn Target>) -> Ended {
        let in_flight = self.metrics.in_flight.with_label_values(&[&*self.entry.route]);
        in_flight.inc();
        let _under_way = OnDrop(|| in_flight.dec());
        let failure = match self.attempt(target).await {
            Ok(ending) => {
                let well = ending.is_an_answer();
                return self.end(ending, well).await;
            }
            Err(Undecided::Gone) => return Ended::Settled { well: false },
            Err(Undecided::NotTried) => return Ended::NotTried,
            Err(Undecided::Failed(failure)) => failure,
        };
        self.metrics.attempted(&self.entry.route, failure.result);
        if Instant::now() < self.deadline {
            return Ended::Failed(failure);
        }
        self.bury(Death::Expired { last: failure.problem }).await
    }

    /// Gives it up.
    pub(super) async fn bury(self, death: Death) -> Ended {
        self.end(Ending::Dead(death), false).await
    }

    /// Tries again to write down what was decided.
    pub(super) async fn settle_again(self, ending: Ending) -> Ended {
        self.settle(ending, false).await
    }

    /// What is decided by an attempt.
    async fn attempt(&self, target: Arc<dyn Target>) -> Result<Ending, Undecided> {
        let entry = &self.entry;
        let message = match self.spool.read(entry.id).await {
            Ok(message) => message,
            Err(Error::Unreadable { problem, .. }) => {
                return Ok(Ending::Dead(Death::Unreadable { problem }));
            }
            Err(Error::Unknown(_)) => return Err(Undecided::Gone),
            Err(error) => {
                return Err(Undecided::Failed(Failure {
                    result: "spool",
                    problem: error.to_string(),
                    retry_after: None,
                    away: false,
                }));
            }
        };
        match target.attempt(entry.id, message).await {
            Attempt::Delivered { remember } => {
                self.metrics.attempted(&entry.route, "delivered");
                let age = Timestamp::now().duration_since(entry.accepted).as_secs_f64();
                self.metrics.age.with_label_values(&[&*entry.route]).observe(age.max(0.0));
                Ok(Ending::Delivered { remember })
            }
            Attempt::Refused { status } => {
                self.metrics.attempted(&entry.route, "refused");
                Ok(Ending::Dead(Death::Refused { status }))
            }
            Attempt::Unusable { problem } => Ok(Ending::Dead(Death::Unreadable { problem })),
            Attempt::Failed(failure) => Err(Undecided::Failed(failure)),
            Attempt::NotTried => Err(Undecided::NotTried),
        }
    }

    async fn end(self, ending: Ending, well: bool) -> Ended {
        if let Ending::Dead(death) = &ending {
            let (id, route, reason) = (self.entry.id, &*self.entry.route, death.name());
            self.metrics.dead.with_label_values(&[route, reason]).inc();
            tracing::warn!(%id, route, ?death, "a record is given up; see exogate spool");
        }
        self.settle(ending, well).await
    }

    async fn settle(self, ending: Ending, well: bool) -> Ended {
        match self.write_down(&ending).await {
            // What is not there has been settled, here or by another host.
            Ok(()) | Err(Error::Unknown(_)) => Ended::Settled { well },
            Err(error) => {
                let (id, route) = (self.entry.id, &*self.entry.route);
                tracing::warn!(%id, route, %error, "the end of a record is not written down yet");
                Ended::Unsettled { ending, well }
            }
        }
    }

    async fn write_down(&self, ending: &Ending) -> Result<(), Error> {
        match ending {
            Ending::Delivered { remember } => {
                // First what would be lost with the record.
                if let Some(fact) = remember {
                    self.spool.remember(fact.clone()).await?;
                }
                self.spool.delivered(&self.entry).await
            }
            Ending::Dead(death) => self.spool.bury(&self.entry, death.clone()).await,
        }
    }
}

/// Does something at the end of a scope, also of one that is cancelled.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

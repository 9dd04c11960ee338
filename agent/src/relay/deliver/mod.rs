//! From the spool to the upstream: in order, again and again, or to the dead letters.
//!
//! A [`Deliverer`] takes records from the spool as they were accepted, and sends
//! each to the pool of its route as soon as it is the oldest in each of its lanes
//! (`lanes`). Lanes do not wait for each other, and the next record of a lane
//! starts when the one before is out of the spool; so after a crash at most one
//! record of a lane comes twice.
//!
//! # When things fail
//!
//! - No answer, 408, 429, 5xx, and an answer of 2xx that the route does not
//!   accept: the record is tried again, after 1 s at most, then 2 s, up to a
//!   minute (4 s where there was no connection), or when `Retry-After` says. That
//!   goes on until the record is `retry_for` old, and for five minutes at least;
//!   then it is a dead letter. Only its own lanes wait for it.
//! - Any other status: a dead letter at once. A server that answers 404 while it
//!   starts needs a probe, so that it gets nothing before.
//! - No server is well: nothing is tried. When one is back, one record goes first.
//!   With each that is delivered one more may be under way, and with each that
//!   fails half as many.
//! - The spool cannot write down that a record was delivered: it is not delivered
//!   again by this process, and the removal is tried again. If the process ends
//!   before that, the record comes once more, with the same id.
//! - The process ends: what is not delivered is still in the spool.
//!
//! # The window
//!
//! At most [`WINDOW`] records are in view at a time, without their messages; these
//! are read when their turn has come. Records beyond the window are not looked at:
//! if so many wait in lanes that are stuck, the others wait with them, until the
//! oldest are delivered or given up.

mod backoff;
mod lanes;
mod metrics;
mod run;
mod target;
mod task;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

use hyper::{StatusCode, body::Bytes};
use tokio_util::sync::CancellationToken;

#[cfg(fuzzing)]
pub(in crate::relay) use self::backoff::retry_after;
pub use self::metrics::Metrics;
use self::{backoff::Backoff, run::Run, target::Target};
use crate::relay::{
    spool::{Message, RecordId, Spool},
    upstream::{Outbound, Pool},
};

/// Records in view at a time: about 5 MB.
pub const WINDOW: usize = 20_000;

/// Makes the request for a message, or says why none can be made of it; then it
/// becomes a dead letter.
pub type Prepare = dyn Fn(&Message, &RecordId) -> Result<Outbound, String> + Send + Sync;

/// Judges the body of an answer of 2xx, of which at most 64 KiB are read.
pub type Answered = dyn Fn(&Message, StatusCode, &Bytes) -> Verdict + Send + Sync;

/// Where the records of a route go, and how.
#[derive(Clone)]
pub struct DeliveryRoute {
    /// Who takes them.
    pub pool: Arc<Pool>,
    /// How a request is made.
    pub prepare: Arc<Prepare>,
    /// What an answer of 2xx has to be; anything if not given.
    pub answered: Option<Arc<Answered>>,
}

/// What the answer to a record means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream has it.
    Accepted {
        /// A fact that the spool remembers before the record is removed from it.
        remember: Option<String>,
    },
    /// Something else answers, or something is wrong with it, in a sentence: the
    /// record is tried again.
    Retry(String),
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a record is tried, from its acceptance.
    pub retry_for: Duration,
    /// How long a stop waits for what is under way.
    pub drain: Duration,
}

/// Delivers what is in a spool.
pub struct Deliverer {
    spool: Arc<dyn Spool>,
    targets: HashMap<Arc<str>, Arc<dyn Target>>,
    options: Options,
    backoff: Backoff,
    window: usize,
    metrics: Metrics,
}

impl Deliverer {
    /// Of this spool, whose `next` nobody else may call, by these routes.
    #[must_use]
    pub fn new(
        spool: Arc<dyn Spool>,
        routes: HashMap<Arc<str>, DeliveryRoute>,
        options: Options,
        metrics: Metrics,
    ) -> Self {
        let target = |(name, route)| (name, Arc::new(route) as Arc<dyn Target>);
        Self::with(spool, routes.into_iter().map(target).collect(), options, metrics)
    }

    fn with(
        spool: Arc<dyn Spool>,
        targets: HashMap<Arc<str>, Arc<dyn Target>>,
        options: Options,
        metrics: Metrics,
    ) -> Self {
        for route in targets.keys() {
            metrics.begin(route);
        }
        Self { spool, targets, options, backoff: Backoff::default(), window: WINDOW, metrics }
    }

    /// Delivers until it is told to stop. Then it begins nothing more, and returns
    /// when what is under way has ended, or the time for that has passed.
    pub async fn run(self, stop: CancellationToken) {
        Run::new(self).run(stop).await;
    }
}

//! Tests of delivery: with a scripted upstream in paused time, so that a day
//! passes in no time, and with real servers on loopback.

mod memory;
mod order;
mod retry;
mod servers;
mod stop;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use prometheus::Registry;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Deliverer, Metrics, Options,
    target::{Attempt, Failure, Target},
};
use crate::relay::spool::{Death, Message, RecordId, Spool};
use memory::Memory;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Of an attempt: which one it is for this record, counted from 1, and the body.
type Script = dyn Fn(usize, &str) -> (Duration, Attempt) + Send + Sync;

/// An upstream that does as it is told.
struct Scripted {
    script: Box<Script>,
    width: usize,
    well: watch::Sender<bool>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    tries: HashMap<RecordId, usize>,
    /// Bodies, and when their attempts began.
    began: Vec<(String, Instant)>,
    under_way: usize,
    most_under_way: usize,
}

impl Scripted {
    fn new(
        script: impl Fn(usize, &str) -> (Duration, Attempt) + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            script: Box::new(script),
            width: 64,
            well: watch::Sender::new(true),
            log: Mutex::default(),
        })
    }

    /// The bodies, in the order in which attempts began.
    fn began(&self) -> Vec<String> {
        self.log.lock().unwrap().began.iter().map(|(body, _)| body.clone()).collect()
    }

    /// The times at which attempts for a body began.
    fn times(&self, body: &str) -> Vec<Instant> {
        let log = self.log.lock().unwrap();
        log.began.iter().filter(|(each, _)| each == body).map(|(_, at)| *at).collect()
    }
}

impl Target for Scripted {
    fn group(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn is_available(&self) -> bool {
        *self.well.borrow()
    }

    fn available(self: Arc<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.well.subscribe().wait_for(|well| *well).await.unwrap();
        })
    }

    fn attempt(self: Arc<Self>, id: RecordId, message: Message) -> BoxFuture<'static, Attempt> {
        Box::pin(async move {
            let body = String::from_utf8(message.body.to_vec()).unwrap();
            let (wait, attempt) = {
                let mut log = self.log.lock().unwrap();
                log.began.push((body.clone(), Instant::now()));
                log.under_way = log.under_way.saturating_add(1);
                log.most_under_way = log.most_under_way.max(log.under_way);
                let tries = log.tries.entry(id).or_default();
                *tries = tries.saturating_add(1);
                (self.script)(*tries, &body)
            };
            sleep(wait).await;
            let mut log = self.log.lock().unwrap();
            log.under_way = log.under_way.saturating_sub(1);
            attempt
        })
    }
}

fn delivered() -> Attempt {
    Attempt::Delivered { remember: None }
}

fn failed() -> Attempt {
    Attempt::Failed(Failure {
        result: "server_error",
        problem: "it answered 500".to_owned(),
        retry_after: None,
        away: false,
    })
}

const SOON: Duration = Duration::from_millis(10);

/// A deliverer that runs.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    registry: Registry,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        timeout(DAY, self.task).await.unwrap().unwrap();
    }

    fn metrics(&self) -> String {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap()
    }
}

/// Delivers the route "graph".
fn run(spool: &Arc<Memory>, target: &Arc<Scripted>) -> Running {
    run_with(spool, target, |_| {})
}

fn run_with(
    spool: &Arc<Memory>,
    target: &Arc<Scripted>,
    change: impl FnOnce(&mut Deliverer),
) -> Running {
    let registry = Registry::new();
    let options = Options { retry_for: DAY, drain: Duration::from_secs(30) };
    let target = Arc::clone(target) as Arc<dyn Target>;
    let mut deliverer = Deliverer::with(
        Arc::clone(spool) as Arc<dyn Spool>,
        [(Arc::from("graph"), target)].into(),
        options,
        Metrics::register(&registry).unwrap(),
    );
    change(&mut deliverer);
    let stop = CancellationToken::new();
    let task = tokio::spawn(deliverer.run(stop.clone()));
    Running { stop, task, registry }
}

/// The reasons of the dead letters.
fn deaths(spool: &Memory) -> Vec<Death> {
    spool.state().dead.iter().map(|letter| letter.death.clone()).collect()
}

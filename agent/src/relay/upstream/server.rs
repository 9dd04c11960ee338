//! One server of a pool: its places, its circuit, its metrics.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{StatusCode, Uri, header::HeaderValue};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, TryAcquireError, watch},
    time::{Instant, timeout_at},
};
use tokio_util::task::TaskTracker;

use super::{
    Error,
    answer::Place,
    circuit::{Admission, Admitted, Circuit},
    connect::Connector,
    connection::Connections,
    metrics::{Metrics, Outcome, ServerMetrics},
};
use crate::config;

/// What is known of a server, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Host and port.
    pub server: String,
    /// Whether nothing is known against it.
    pub up: bool,
    /// Since when it is up, or down.
    pub since: Timestamp,
    /// What went wrong last, be it long ago.
    pub last_problem: Option<String>,
    /// Whether an operator has taken it out of service.
    #[serde(default)]
    pub drained: bool,
    /// Requests under way, and connections that clients own.
    #[serde(default)]
    pub load: usize,
}

pub(super) struct Server {
    /// Host and port.
    pub(super) name: String,
    pub(super) host: HeaderValue,
    pub(super) connections: Connections,
    upstream: String,
    places: Arc<Semaphore>,
    under_way: TaskTracker,
    circuit: Mutex<Circuit>,
    uri: Uri,
    /// Requests at once.
    most: usize,
    /// Connections that clients own.
    pinned: AtomicUsize,
    /// Whether an operator has taken it out of service.
    is_drained: AtomicBool,
    /// Told when somebody who waits for a server should look again.
    changed: watch::Sender<()>,
    pub(super) metrics: ServerMetrics,
}

/// Why a request did not get in.
pub(super) enum Refused {
    /// The server is down or left alone.
    NotWell,
    /// There was no place in time.
    Busy,
    /// The pool is being stopped.
    Stopping,
}

impl Server {
    pub(super) fn new(
        upstream: &config::Upstream,
        uri: &Uri,
        connector: Connector,
        under_way: TaskTracker,
        changed: watch::Sender<()>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let name = uri.authority().map_or_else(String::new, ToString::to_string);
        let own = || {
            HeaderValue::from_str(&name).map_err(|error| Error::Option {
                upstream: upstream.name.clone(),
                option: "servers",
                problem: format!("{name}: {error}"),
            })
        };
        let host = upstream.host.clone().map_or_else(own, Ok)?;
        Ok(Self {
            host,
            connections: Connections::new(connector, uri.clone()),
            upstream: upstream.name.clone(),
            places: Arc::new(Semaphore::new(upstream.connections)),
            under_way,
            circuit: Mutex::new(Circuit::new(upstream.breaker.clone())),
            uri: uri.clone(),
            most: upstream.connections,
            pinned: AtomicUsize::new(0),
            is_drained: AtomicBool::new(false),
            changed,
            metrics: metrics.of(&upstream.name, &name),
            name,
        })
    }

    /// Its address.
    pub(super) const fn address(&self) -> &Uri {
        &self.uri
    }

    /// Requests under way, and connections that clients own.
    pub(super) fn load(&self) -> usize {
        let requests = self.most.saturating_sub(self.places.available_permits());
        requests.saturating_add(self.pinned.load(Ordering::Relaxed))
    }

    /// A client has got, or given up, a connection of its own.
    pub(super) fn pinned(&self, is_open: bool) {
        match is_open {
            true => self.pinned.fetch_add(1, Ordering::Relaxed),
            false => self.pinned.fetch_sub(1, Ordering::Relaxed),
        };
    }

    /// Whether nothing new goes there, by the will of an operator.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained.load(Ordering::Relaxed)
    }

    pub(super) fn set_drained(&self, drained: bool) {
        self.is_drained.store(drained, Ordering::Relaxed);
        self.metrics.drained.set(i64::from(drained));
    }

    /// Lets a request in, as soon as there is a place for it.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<(Attempt<'_>, Place), Refused> {
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::Closed) => return Err(Refused::Stopping),
            Err(TryAcquireError::NoPermits) => {
                let mut changed = self.changed.subscribe();
                loop {
                    // Whoever waits for a server that is given up goes elsewhere.
                    if !self.admits() {
                        return Err(Refused::NotWell);
                    }
                    tokio::select! {
                        permit = timeout_at(deadline, Arc::clone(&self.places).acquire_owned()) => {
                            match permit {
                                Ok(Ok(permit)) => break permit,
                                Ok(Err(_)) => return Err(Refused::Stopping),
                                Err(_) => {
                                    self.metrics.count(Outcome::Busy);
                                    return Err(Refused::Busy);
                                }
                            }
                        }
                        _ = changed.changed() => {}
                    }
                }
            }
        };
        let admitted = self.change(|circuit| circuit.admit(Instant::now()));
        let attempt = admitted.map(|admitted| Attempt { server: self, admitted, ended: false });
        let place = Place { _permit: permit, _under_way: self.under_way.token() };
        attempt.map(|attempt| (attempt, place)).ok_or(Refused::NotWell)
    }

    /// Refuses requests from now on, also those that wait for a place.
    pub(super) fn close(&self) {
        self.places.close();
    }

    /// Whether a request would be let through now.
    pub(super) fn admits(&self) -> bool {
        self.circuit().admits(Instant::now())
    }

    /// When a request will be let through.
    pub(super) fn admission(&self) -> Admission {
        self.circuit().admission()
    }

    pub(super) fn last_problem(&self) -> Option<String> {
        self.circuit().problem.clone()
    }

    pub(super) fn status(&self) -> ServerStatus {
        let circuit = self.circuit();
        ServerStatus {
            server: self.name.clone(),
            up: circuit.is_up(),
            since: circuit.since,
            last_problem: circuit.problem.clone(),
            drained: self.is_drained(),
            load: self.load(),
        }
    }

    /// A probe was answered well, or has a problem.
    pub(super) fn probed(&self, result: Result<(), String>) {
        if result.is_err() {
            self.metrics.failed_probes.inc();
        }
        self.change(|circuit| circuit.probed(result));
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the circuit, and tells everybody what has changed by that.
    fn change<T>(&self, change: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuit = self.circuit();
        let (was_up, before) = (circuit.is_up(), circuit.admission());
        let result = change(&mut circuit);
        let up = circuit.is_up();
        if was_up == up && before == circuit.admission() {
            return result;
        }
        if was_up != up {
            circuit.since = Timestamp::now();
        }
        self.metrics.up.set(i64::from(up));
        self.metrics.open.set(i64::from(circuit.is_open()));
        let problem = (was_up && !up).then(|| circuit.problem.clone().unwrap_or_default());
        drop(circuit);
        self.changed.send_replace(());
        let (upstream, server) = (self.upstream.as_str(), self.name.as_str());
        if let Some(problem) = problem {
            tracing::warn!(upstream, server, problem, "the server is down");
        } else if !was_up && up {
            tracing::info!(upstream, server, "the server is up");
        }
        result
    }
}

/// A request that was let in. If it is dropped without an end, nothing was learnt.
pub(super) struct Attempt<'a> {
    server: &'a Server,
    admitted: Admitted,
    ended: bool,
}

impl Attempt<'_> {
    /// The server answered, which took so long.
    pub(super) fn answered(self, status: StatusCode, took: Duration) {
        let server = self.server;
        server.metrics.seconds.observe(took.as_secs_f64());
        let outcome = if status.is_server_error() { Outcome::ServerError } else { Outcome::Ok };
        if is_not_there(status) {
            self.failed(outcome, format!("{} answered {status}", server.name));
        } else {
            self.succeeded(outcome);
        }
    }

    /// The server answered as one that is well.
    pub(super) fn succeeded(mut self, outcome: Outcome) {
        self.end(outcome);
        self.server.change(Circuit::succeeded);
    }

    /// The server failed.
    pub(super) fn failed(mut self, outcome: Outcome, problem: String) {
        self.end(outcome);
        self.server.change(|circuit| circuit.failed(self.admitted, problem, Instant::now()));
    }

    /// It ended without fault of the server.
    pub(super) fn spoilt(mut self, outcome: Outcome) {
        self.end(outcome);
        self.server.change(|circuit| circuit.abandoned(self.admitted, Instant::now()));
    }

    fn end(&mut self, outcome: Outcome) {
        self.ended = true;
        self.server.metrics.count(outcome);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.server.metrics.count(Outcome::Cancelled);
            self.server.change(|circuit| circuit.abandoned(self.admitted, Instant::now()));
        }
    }
}

/// What a proxy, or a server that starts or stops, answers for an application that
/// cannot be reached.
const fn is_not_there(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

//! Pools of servers: health, fail-over, credentials.
//!
//! A [`Pool`] sends a request to one of several servers that answer alike. It keeps
//! connections alive, limits how many requests a server gets at once, sets `Host`,
//! credentials and configured fields, and never follows a redirect.
//!
//! # When things fail
//!
//! - A server that fails several times in a row is left alone for a while, then
//!   tried with one request. Failures are: no connection, no answer in time, a
//!   connection that breaks, and 502, 503 and 504. A 500 is what the application
//!   thinks of one request; it says nothing of the next.
//! - A server whose probe is not answered with 200 gets no requests until one is.
//! - A request that failed is sent to the next server as [`Repeat`] allows.
//! - Without a server that is well, a request fails at once with
//!   [`SendError::Unavailable`], and [`Pool::available`] says when to try again.
//!
//! All limits of time are for the whole request: what it waits for a place and for
//! connections that fail is taken from the time of the answer.

mod answer;
mod balance;
mod circuit;
mod connect;
mod connection;
mod credentials;
mod error;
mod metrics;
mod outbound;
mod pinned;
mod probe;
mod progress;
mod replay;
mod server;
#[cfg(test)]
pub(in crate::relay) mod stand_in;
#[cfg(test)]
mod tests;
mod tunnel;

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use hyper::{
    HeaderMap, Request, Response,
    header::{HOST, HeaderName, HeaderValue},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use self::{
    answer::{Answer, BodyError},
    error::{Error, SendError},
    metrics::Metrics,
    outbound::{Outbound, Payload, Repeat},
    server::ServerStatus,
};
use self::{
    circuit::Admission,
    connect::Connector,
    connection::Reply,
    metrics::Outcome,
    outbound::Sent,
    server::{Attempt, Refused, Server},
};
pub(in crate::relay) use self::{
    circuit::after,
    outbound::remove_hop_by_hop,
    pinned::{Answered, Client, OnEnd, Pinned, Streamed, Switched},
    progress::Progress,
};
use crate::config::{self, Balance};

/// Servers that answer alike.
pub struct Pool {
    name: String,
    servers: Vec<Arc<Server>>,
    caller: Arc<Caller>,
    /// For connections that are not the pool's.
    connector: Connector,
    balance: Balance,
    /// Round-robin's next server.
    next: AtomicUsize,
    connect_timeout: Duration,
    response_timeout: Duration,
    connections: usize,
    changed: watch::Sender<()>,
    under_way: TaskTracker,
    probes: CancellationToken,
    _probes_end_with_the_pool: DropGuard,
}

/// What requests and probes have in common.
struct Caller {
    /// Set on each request.
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Caller {
    /// The request as it goes to the server.
    fn request(&self, server: &Server, outbound: Outbound) -> Request<Sent> {
        let mut request = Request::new(outbound.body.into_body());
        *request.method_mut() = outbound.method;
        *request.uri_mut() = outbound.path_and_query.into();
        *request.headers_mut() = outbound.headers;
        request.headers_mut().insert(HOST, server.host.clone());
        request
    }

    fn set(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
    }
}

impl Pool {
    /// Makes a pool, and the tasks that probe its servers. Reads certificates and
    /// the password, which blocks; needs tokio.
    ///
    /// # Errors
    ///
    /// If a file or a value cannot be used; the error names it and the option.
    pub fn new(upstream: &config::Upstream, metrics: &Metrics) -> Result<Arc<Self>, Error> {
        let mut headers = upstream.headers.clone();
        headers.extend(credentials::header(upstream)?);
        let caller = Arc::new(Caller { headers });
        let connector = Connector::new(upstream)?;
        let (changed, _) = watch::channel(());
        let under_way = TaskTracker::new();
        let servers = upstream
            .servers
            .iter()
            .map(|uri| {
                Server::new(
                    upstream,
                    uri,
                    connector.clone(),
                    under_way.clone(),
                    changed.clone(),
                    metrics,
                )
                .map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let probes = CancellationToken::new();
        for server in &servers {
            let tidying = server.connections.tidy();
            tokio::spawn(probes.clone().run_until_cancelled_owned(tidying));
        }
        if let Some(check) = &upstream.health {
            for server in &servers {
                let (server, caller) = (Arc::clone(server), Arc::clone(&caller));
                let probing = probe::run(server, caller, check.clone());
                tokio::spawn(probes.clone().run_until_cancelled_owned(probing));
            }
        }
        Ok(Arc::new(Self {
            name: upstream.name.clone(),
            servers,
            caller,
            connector,
            balance: upstream.balance,
            next: AtomicUsize::new(0),
            connect_timeout: upstream.connect_timeout,
            response_timeout: upstream.response_timeout,
            connections: upstream.connections,
            changed,
            under_way,
            _probes_end_with_the_pool: probes.clone().drop_guard(),
            probes,
        }))
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long an answer may take.
    #[must_use]
    pub const fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// How many requests each server gets at once.
    #[must_use]
    pub const fn connections(&self) -> usize {
        self.connections
    }

    /// The answer to a request, when its head is there, without the fields that
    /// belong to one connection. Any status is an answer. Safe to cancel: what is
    /// under way is broken off.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send(
        &self,
        outbound: Outbound,
        repeat: Repeat,
    ) -> Result<Response<Answer>, SendError> {
        self.send_by(outbound, repeat, after(Instant::now(), self.response_timeout)).await
    }

    /// The same for a request that has to be answered by a time, because its own
    /// sender has waited already.
    ///
    /// # Errors
    ///
    /// See [`SendError`].
    pub async fn send_by(
        &self,
        mut outbound: Outbound,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<Response<Answer>, SendError> {
        outbound::clean(&mut outbound.headers);
        self.caller.set(&mut outbound.headers);
        let mut failed = None;
        let mut order = self.order(None).peekable();
        while let Some(server) = order.next() {
            let (attempt, place) = match server.enter(deadline).await {
                Ok(entered) => entered,
                Err(Refused::NotWell) => continue,
                Err(Refused::Busy) => {
                    let server = server.name.clone();
                    return Err(SendError::Busy { server, after: self.response_timeout });
                }
                Err(Refused::Stopping) => return Err(SendError::Stopping(self.name.clone())),
            };
            let repeats = repeat != Repeat::Never && order.peek().is_some();
            let again = if repeats { outbound.again() } else { None };
            let error = match self.attempt(server, attempt, outbound, deadline).await {
                Ok(response) => {
                    let (mut head, body) = response.into_parts();
                    remove_hop_by_hop(&mut head.headers);
                    return Ok(Response::from_parts(head, Answer::new(body, place)));
                }
                Err(error) => error,
            };
            drop(place);
            let may = match &error {
                SendError::Connect { .. } => true,
                SendError::Reset { .. } | SendError::Invalid { .. } => repeat == Repeat::Always,
                _ => false,
            };
            match again.filter(|_| may) {
                Some(again) => outbound = again,
                None => return Err(error),
            }
            failed = Some(error);
        }
        Err(failed.unwrap_or_else(|| self.unavailable()))
    }

    /// Whether a request would be sent now.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.servers.iter().any(|server| !server.is_drained() && server.admits())
    }

    /// Waits until a request would be sent. Several callers may wait, and the first
    /// request may find that it was not enough: ask again then. Safe to cancel.
    pub async fn available(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_available() {
            // One that is drained is not asked, however well it is.
            let asked = self.servers.iter().filter(|server| !server.is_drained());
            let soonest = asked.filter_map(|server| match server.admission() {
                Admission::Now => Some(Instant::now()),
                Admission::At(at) => Some(at),
                Admission::Unknown => None,
            });
            let until = soonest.min();
            tokio::select! {
                // The sender is part of this pool.
                _ = changed.changed() => {}
                () = async { sleep_until(until.unwrap_or_else(Instant::now)).await },
                    if until.is_some() => {}
            }
        }
    }

    /// What is known of each server.
    #[must_use]
    pub fn status(&self) -> Vec<ServerStatus> {
        self.servers.iter().map(|server| server.status()).collect()
    }

    /// Refuses requests from now on, and waits until those under way have ended,
    /// with the bodies of their answers. Whoever has no time left drops the pool.
    pub async fn drain(&self) {
        self.probes.cancel();
        for server in &self.servers {
            server.close();
        }
        self.under_way.close();
        self.under_way.wait().await;
    }

    async fn attempt(
        &self,
        server: &Server,
        attempt: Attempt<'_>,
        outbound: Outbound,
        deadline: Instant,
    ) -> Result<Response<Reply>, SendError> {
        let request = self.caller.request(server, outbound);
        let began = Instant::now();
        let error = match timeout_at(deadline, server.connections.send(request)).await {
            Ok(Ok(response)) => {
                attempt.answered(response.status(), began.elapsed());
                return Ok(response);
            }
            Ok(Err(failure)) => SendError::of(&server.name, &failure),
            Err(_) => {
                SendError::Timeout { server: server.name.clone(), after: self.response_timeout }
            }
        };
        match error.outcome() {
            Outcome::Request => attempt.spoilt(Outcome::Request),
            outcome => attempt.failed(outcome, error.to_string()),
        }
        Err(error)
    }

    fn unavailable(&self) -> SendError {
        let last = self.servers.iter().find_map(|server| server.last_problem());
        SendError::Unavailable {
            upstream: self.name.clone(),
            last: last.unwrap_or_else(|| "all are on trial".to_owned()),
        }
    }
}

//! From a request to its answer.
//!
//! A request is read once into a target, which finds its route; the route says
//! what the request has to be. What passes is made durable or passed on, and only
//! then answered well. Whatever is not what a route expects is answered without
//! anything behind the relay hearing of it: 404 where the place or the kind of
//! the request is wrong, 400 where it cannot be read, 413 where it is too large.
//!
//! Every answer is counted under its route, with its time, because Microsoft
//! counts them too.

mod answer;
mod body;
mod ews;
mod graph;
mod memory;
mod metrics;
mod proxy;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE},
    http::request::Parts,
};
use tokio::time::Instant;

use self::{answer::empty, memory::Held};
pub(super) use self::{
    ews::answered,
    memory::Memory,
    metrics::{Clocked, Metrics, RouteMetrics, Watched},
    proxy::Maintenance,
};
use super::{
    Body, access, ews as ews_protocol, forward, graph as graph_protocol,
    listen::{Handler, Passthrough, Peer, RequestBody},
    proxy::passthrough::Passthroughs,
    route::{Routes, Target},
    silence::Silence,
    slow::SlowAnswers,
    store::OpenSpool,
    upstream::Pool,
};
use crate::config;

/// Answers the requests of all listeners.
pub(super) struct Receiver {
    pub(super) routes: Routes,
    /// One for each route of the configuration, in its order.
    pub(super) rooms: Vec<Room>,
    pub(super) unrouted: RouteMetrics,
    /// TLS that is not ours, if there is any.
    pub(super) passthroughs: Option<Arc<Passthroughs>>,
    /// Whether each request is logged.
    pub(super) access_log: bool,
}

/// All that a route needs to answer.
pub(super) struct Room {
    pub(super) route: config::Route,
    pub(super) kind: Kind,
    pub(super) pool: Arc<Pool>,
    /// Where the route stores, if it does.
    pub(super) spool: OpenSpool,
    /// Shared by all routes.
    pub(super) memory: Memory,
    pub(super) metrics: RouteMetrics,
    pub(super) silence: Arc<Silence>,
    /// Shared by all routes of a host that Graph notifies; what Exchange waits for is
    /// no business of Graph's.
    pub(super) endpoint: Option<Arc<SlowAnswers>>,
}

/// What the requests of a route have to be.
pub(super) enum Kind {
    /// Graph's notifications.
    Graph {
        /// What they have to be.
        checks: graph_protocol::Checks,
        /// Who answers handshakes.
        handshake: config::Handshake,
    },
    /// EWS notifications.
    Ews {
        /// What they have to be.
        checks: ews_protocol::Checks,
        /// When they are answered.
        delivery: config::Delivery,
    },
    /// Requests of clients.
    Proxy(config::Proxy, Maintenance),
}

/// A request that has found its route.
struct Inbound<'a> {
    head: Parts,
    /// Taken by whoever reads it.
    body: Option<RequestBody>,
    target: &'a Target,
    peer: &'a Peer,
    since: Instant,
    /// The other protocols that it asks for, a line each.
    upgrades: Vec<HeaderValue>,
    /// Whether who sent it asks for them, and not somebody whose `Upgrade` was passed on.
    names_upgrade: bool,
}

impl Handler for Receiver {
    fn handle(
        self: Arc<Self>,
        request: Request<RequestBody>,
        peer: Arc<Peer>,
    ) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move { self.answer(request, &peer).await })
    }

    fn refused(
        &self,
        peer: &Peer,
        method: Option<&Method>,
        reason: &str,
        status: Option<StatusCode>,
    ) {
        if self.access_log {
            access::refused(peer, method, reason, status);
        }
    }

    fn passthrough(&self) -> Option<Arc<dyn Passthrough>> {
        self.passthroughs.clone().map(|all| all as Arc<dyn Passthrough>)
    }
}

impl Receiver {
    async fn answer(&self, request: Request<RequestBody>, peer: &Peer) -> Response<Body> {
        let since = Instant::now();
        let (mut head, body) = request.into_parts();
        let method = head.method.clone();
        let refuse = |reason, status| {
            self.unrouted.refuse(reason);
            self.unrouted.answered(status, since.elapsed());
            if self.access_log {
                access::refused(peer, Some(&method), reason, Some(status));
            }
            empty(status)
        };
        let target = match Target::parse(&head) {
            Ok(target) => target,
            Err(bad) => return refuse(bad.name(), StatusCode::BAD_REQUEST),
        };
        let room = self.routes.find(&target).and_then(|found| self.rooms.get(found.place));
        let Some(room) = room else { return refuse("no_route", StatusCode::NOT_FOUND) };
        let source = peer.source.ip();
        let entry = self
            .access_log
            .then(|| access::Entry::new(&method, &head.headers, &target, &room.route));
        // Before what says so is removed.
        let upgrades = head.headers.get_all(UPGRADE).iter().cloned().collect();
        let names_upgrade = names_upgrade(&head.headers);
        forward::clean(&mut head.headers, &room.route, target.host(), source);
        let body = Some(body);
        let inbound = Inbound { head, body, target: &target, peer, since, upgrades, names_upgrade };
        let response = match &room.kind {
            Kind::Graph { checks, handshake } => {
                graph::receive(room, checks, *handshake, inbound).await
            }
            Kind::Ews { checks, delivery } => ews::receive(room, checks, *delivery, inbound).await,
            Kind::Proxy(proxy, maintenance) => {
                proxy::receive(room, proxy, maintenance, inbound).await
            }
        };
        let took = since.elapsed();
        room.metrics.answered(response.status(), took);
        if let Some(entry) = entry {
            entry.answered(peer, &room.route, &response, took);
        }
        if let Some(endpoint) = &room.endpoint {
            endpoint.answered(took);
        }
        response
    }
}

/// Whether `Connection` names `Upgrade`, as it has to (RFC 9110, section 7.8).
fn names_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"))
}

impl Room {
    /// Refuses a request before anything was stored or forwarded.
    fn refuse(&self, reason: &str, status: StatusCode) -> Response<Body> {
        self.metrics.refuse(reason);
        tracing::debug!(route = self.route.name, reason, %status, "refused");
        empty(status)
    }

    /// Reads the body, or refuses it. Its room in memory is to be kept as long as it.
    async fn read(&self, body: Option<RequestBody>) -> Result<(Bytes, Held), Response<Body>> {
        let mut held = self.memory.hold();
        let Some(body) = body else { return Ok((Bytes::new(), held)) };
        match body::read(body, self.route.body_bytes, &mut held).await {
            Ok(body) => Ok((body, held)),
            Err(bad) => Err(self.refuse(bad.name(), bad.status())),
        }
    }
}

#[cfg(test)]
mod tests;
